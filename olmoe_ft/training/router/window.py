"""What is logged about the router between two records."""

from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor

from olmoe_ft.objective import RouterTerms, Routing, routing_statistics


class LogWindow:
    """Running sums of one process between two log records, kept on the device: nothing synchronises in between."""

    LOSSES = ("loss/task", "router/load_balancing_loss", "router/z_loss", "router/loss")

    def __init__(self) -> None:
        self.losses: Tensor | None = None
        self.routing: Routing | None = None

    def add(
        self, task_loss: Tensor, terms: RouterTerms, routing: Routing, micro_batches: int, task_is_divided: bool
    ) -> None:
        """Add one micro-batch of an optimizer step of `micro_batches`; the task loss may be its part already."""
        task = task_loss.detach() * (micro_batches if task_is_divided else 1)
        parts = (task, terms.load_balancing_loss, terms.z_loss, terms.loss, torch.ones_like(task))
        losses = torch.stack([part.detach().float() for part in parts]) / micro_batches  # the last counts steps
        routing = routing.detach()
        self.losses = losses if self.losses is None else self.losses + losses
        self.routing = routing if self.routing is None else self.routing + routing

    def carried(self) -> list[Tensor]:
        """Its sums, of which there are none after a record."""
        return [] if self.losses is None or self.routing is None else [self.losses, *self.routing.tensors()]

    def carry_on(self, kept: list[Tensor], device: torch.device) -> None:
        if kept:
            self.losses, *routing = (tensor.to(device) for tensor in kept)
            self.routing = Routing(*routing)

    def metrics(self, accelerator: Accelerator) -> dict[str, Any]:
        """Losses as means over the optimizer steps and all processes, statistics over all their tokens together.

        One all-reduce and one copy to the CPU. Empty where nothing was added.
        """
        if self.losses is None or self.routing is None:
            return {}
        sums = [self.losses, *self.routing.tensors()]
        flat = accelerator.reduce(torch.cat([tensor.flatten() for tensor in sums]), reduction="sum").cpu()
        pieces = flat.split([tensor.numel() for tensor in sums])
        losses, *routing = (piece.view(tensor.shape) for piece, tensor in zip(pieces, sums, strict=True))
        means = losses[:-1] / losses[-1]
        return dict(zip(self.LOSSES, means.tolist(), strict=True)) | routing_record(Routing(*routing))


def routing_record(routing: Routing) -> dict[str, Any]:
    """Statistics under their metric names: over all layers, and layer by layer."""
    statistics = routing_statistics(routing)
    record: dict[str, Any] = {
        "router/tokens": int(routing.tokens),
        "router/entropy": statistics.entropy.mean().item(),
        "router/max_violation": statistics.max_violation.max().item(),
        "router/dead_experts": int(statistics.dead_experts.sum()),
    }
    for layer, load in enumerate(statistics.load.tolist()):
        record[f"router/load/layer_{layer:02d}"] = [round(share, 6) for share in load]
    for name in ("entropy", "max_violation", "dead_experts"):
        for layer, value in enumerate(getattr(statistics, name).tolist()):
            record[f"router/{name}/layer_{layer:02d}"] = value
    return record
