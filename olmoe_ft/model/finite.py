"""Which weights of a network hold NaN or infinity."""

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from olmoe_ft.model.names import EXPERTS, PUBLISHED, published_weight


def not_finite(model: nn.Module) -> list[str]:
    """Names of the weights with a number that is not finite, an expert's by its published name.

    Every weight is read once, without a copy. Under ZeRO-3 it is this process's shard that is read.
    """
    held = [
        (name, tensor)
        for name, weight in model.named_parameters()
        if (tensor := getattr(weight, "ds_tensor", weight).detach()).is_floating_point() and tensor.numel()
    ]
    if not held:
        return []
    finite = torch.stack([is_finite(tensor).cpu() for _, tensor in held]).tolist()
    return [
        published
        for (name, tensor), fine in zip(held, finite, strict=True)
        if not fine
        for published in _published(name, tensor)
    ]


def listed(names: list[str], shown: int = 5) -> str:
    """The first of some names, and how many more there are."""
    more = f" and {len(names) - shown} more" if len(names) > shown else ""
    return ", ".join(names[:shown]) + more


def is_finite(tensor: Tensor) -> Tensor:
    """Whether all numbers are, as a tensor; NaN and both infinities show in the smallest or the largest."""
    return torch.stack(torch.aminmax(tensor)).isfinite().all()


def _published(name: str, stack: Tensor) -> Iterator[str]:
    """The experts' weights of a stack (E, 2·I, H) or (E, H, I) that are not finite, or the name as it is."""
    block, _, kind = name.rpartition(".")
    if not block.endswith(EXPERTS) or kind not in PUBLISHED or stack.dim() != 3:
        yield name
        return
    for projection, weights in zip(PUBLISHED[kind], stack.chunk(len(PUBLISHED[kind]), dim=1), strict=True):
        for expert, weight in enumerate(weights):
            if not is_finite(weight):
                yield published_weight(block, expert, projection)
