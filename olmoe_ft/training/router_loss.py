"""What both trainers add to TRL's: the router objective in the loss, and its numbers in the log."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from peft import PeftModel
from torch import Tensor, nn
from transformers import Trainer

from olmoe_ft.objective import RouterObjective, RouterTerms, Routing, routing_statistics


@contextmanager
def record_router_logits(backbone: nn.Module) -> Iterator[list[tuple[Tensor, ...]]]:
    """Ask every forward of the backbone within the block for its router logits, and collect them.

    TRL's trainers call the model through a fused head that returns log-probabilities only. The hooks sit on the whole
    backbone, outside every checkpointed layer, and read an output that carries its gradient: nothing is recomputed
    and nothing is detached.

    Yields:
        one tuple of (T, E) tensors for each forward, in order.
    """
    recorded: list[tuple[Tensor, ...]] = []

    def ask(module: nn.Module, args: tuple, kwargs: dict[str, Any]) -> tuple[tuple, dict[str, Any]]:
        return args, {**kwargs, "output_router_logits": True}

    def keep(module: nn.Module, args: tuple, outputs: Any) -> None:
        recorded.append(outputs.router_logits)

    handles = [backbone.register_forward_pre_hook(ask, with_kwargs=True), backbone.register_forward_hook(keep)]
    try:
        yield recorded
    finally:
        for handle in handles:
            handle.remove()


class LogWindow:
    """Running sums of one process between two log records, kept on the device: nothing synchronises in between."""

    NAMES = ("loss/task", "router/load_balancing_loss", "router/z_loss", "router/loss")

    def __init__(self) -> None:
        self.sums: Tensor | None = None
        self.routing: Routing | None = None

    def add(self, task_loss: Tensor, terms: RouterTerms, micro_batches: int, task_is_divided: bool) -> None:
        """Add one micro-batch of an optimizer step of `micro_batches`; the task loss may be its part already."""
        task = task_loss.detach() * (micro_batches if task_is_divided else 1)
        parts = (task, terms.load_balancing_loss, terms.z_loss, terms.loss)
        row = torch.stack([part.detach().float() for part in parts]) / micro_batches
        self.sums = row if self.sums is None else self.sums + row
        self.routing = terms.routing if self.routing is None else self.routing + terms.routing

    def metrics(self, accelerator: Any, steps: int) -> dict[str, Any]:
        """Means over `steps` optimizer steps and all ranks, and the routing of all their tokens."""
        if self.sums is None or self.routing is None:
            return {}
        means = accelerator.reduce(self.sums, "mean") / steps
        record: dict[str, Any] = dict(zip(self.NAMES, means.tolist(), strict=True))
        fields = self.routing.__dataclass_fields__
        statistics = routing_statistics(
            Routing(*(accelerator.reduce(getattr(self.routing, name), "sum") for name in fields))
        )
        record["router/entropy"] = statistics.entropy.mean().item()
        record["router/max_violation"] = statistics.max_violation.max().item()
        record["router/dead_experts"] = int(statistics.dead_experts.sum())
        for layer, load in enumerate(statistics.load.tolist()):
            record[f"router/load/layer_{layer:02d}"] = [round(share, 6) for share in load]
        return record


class RouterLossMixin(Trainer):
    """Stands before a TRL trainer among the bases: `loss = task loss + router losses`, the same for any machine shape.

    TRL's own auxiliary term must be off (`router_aux_loss_coef=0`). Evaluation returns the task loss alone.
    """

    def __init__(self, *args: Any, router_objective: RouterObjective, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.router_objective = router_objective
        model = self.model.get_base_model() if isinstance(self.model, PeftModel) else self.model
        self.backbone = model.base_model
        self._window = LogWindow()
        self._last_logged_step = 0

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        if not self.model.training:
            return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        with record_router_logits(self.backbone) as recorded:
            task_loss = super().compute_loss(model, inputs, num_items_in_batch=num_items_in_batch)
        # The policy's forward comes first; in DPO with LoRA the reference's, through the same backbone, comes second.
        mask = inputs.get("attention_mask")
        terms = self.router_objective.terms(recorded[0], None if mask is None else mask.flatten())
        # Trainer sums micro-batches. Where it counted their tokens the task loss is already divided by all of them,
        # and the router's term must be divided too; elsewhere Trainer divides what is returned here.
        micro_batches = self.current_gradient_accumulation_steps
        divided = num_items_in_batch is not None
        self._window.add(task_loss, terms, micro_batches, task_is_divided=divided)
        return self.router_objective.total(task_loss, terms, micro_batches if divided else 1)

    def log(self, logs: dict[str, Any], start_time: float | None = None) -> None:
        if "loss" in logs:  # a record of training steps; every rank comes here
            logs |= self._window.metrics(self.accelerator, self.state.global_step - self._last_logged_step)
            self._window, self._last_logged_step = LogWindow(), self.state.global_step
        super().log(logs, start_time)
