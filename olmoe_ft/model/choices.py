"""Which experts the routers chose.

Shapes: T tokens, L layers, E experts, K experts per token.
"""

from collections.abc import Sequence

import torch
from torch import Tensor


def choices(router_logits: Sequence[Tensor], experts_per_token: int) -> Tensor:
    """One (T, E) a layer, pre-softmax -> the experts of each token, (T, L, K)."""
    return torch.stack(tuple(router_logits), dim=1).topk(experts_per_token, dim=-1).indices


def counted(chosen: Tensor, experts: int) -> Tensor:
    """Choices (T, L, K) -> how often each expert was chosen, (L, E)."""
    by_layer = chosen.transpose(0, 1).flatten(1)
    return torch.zeros(by_layer.shape[0], experts, dtype=torch.long, device=chosen.device).scatter_add_(
        1, by_layer, torch.ones_like(by_layer)
    )


def busiest(counts: Tensor, number: int = 3) -> list[tuple[int, int, float]]:
    """The experts that were chosen most often: layer, expert, and the share of the layer's choices, the largest first.

    Args:
        counts: (L, E), of choices.
        number: of experts, over all layers; fewer are returned where fewer were chosen at all.
    """
    shares = counts.double() / counts.sum(dim=-1, keepdim=True).clamp(min=1)
    largest, places = shares.flatten().sort(descending=True, stable=True)
    pairs = zip(largest[:number].tolist(), places[:number].tolist(), strict=True)
    return [(*divmod(place, counts.shape[1]), share) for share, place in pairs if share > 0]
