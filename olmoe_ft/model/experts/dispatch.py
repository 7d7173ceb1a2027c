"""The (token, expert) pairs of a layer sorted by expert, and the sum over a token's experts.

Shapes: T tokens, H hidden, E experts, K experts per token, R = T·K rows (a token once per expert), sorted by expert.
"""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from olmoe_ft.model.kernels import use_triton

KEY = torch.int16  # of an expert's number: radix sort needs a quarter of the passes that int64 does


class Routes(NamedTuple):
    """The (token, expert) pairs of one layer, sorted by expert."""

    order: Tensor  # (R,) the r-th sorted row is the pair order[r] of (T, K), flattened
    place: Tensor  # (T, K) its inverse: the sorted row of each pair
    token: Tensor  # (R,) the token of each sorted row
    ends: Tensor  # (E,) int32, where each expert's rows end

    @classmethod
    def of(cls, experts: Tensor, num_experts: int) -> "Routes":
        """experts (T, K), distinct in each token. Nothing here waits for the device."""
        assert num_experts <= torch.iinfo(KEY).max
        by_expert, order = experts.flatten().to(KEY).sort()
        numbers = torch.arange(order.numel(), device=order.device)
        place = torch.empty_like(order).scatter_(0, order, numbers).view_as(experts)
        all_experts = torch.arange(num_experts, dtype=KEY, device=order.device)
        ends = torch.searchsorted(by_expert, all_experts, right=True, out_int32=True)
        return cls(order, place, order // experts.shape[1], ends)


def combine(rows: Tensor, routes: Routes, weights: Tensor | None) -> Tensor:
    """`y[t] = sum_k w[t, k] rows[place[t, k]]`. rows (R, H), weights (T, K) or None for ones -> (T, H).

    As in transformers, products in half precision are rounded before they are summed (in fp32): a later router then
    gets the same logits as there, and chooses the same experts.
    """
    if rows.device.type == "cpu" and rows.dtype in (torch.float32, torch.float64):
        return F.embedding_bag(routes.place, rows, mode="sum", per_sample_weights=weights)
    if use_triton(rows):
        from olmoe_ft.model.kernels.combine import combine as fused

        return fused(rows, routes.place, weights)
    each = by_token(rows, routes.place)  # (T, K, H)
    return (each if weights is None else each.mul_(weights.unsqueeze(-1))).sum(dim=1)


def by_token(rows: Tensor, place: Tensor) -> Tensor:
    """rows (R, H) sorted by expert -> a new (T, K, H)."""
    return rows.index_select(0, place.flatten()).view(*place.shape, rows.shape[-1])
