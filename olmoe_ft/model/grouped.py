"""The experts as grouped matrix products: tokens sorted by expert, one product per projection for all experts.

Shapes: T tokens, H hidden, I intermediate, E experts, K experts per token, R = T·K rows (a token once per expert).
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F


def grouped_experts(module: Any, x: Tensor, experts: Tensor, weights: Tensor) -> Tensor:
    """`y_t = sum_k w_tk · down_e(act(gate_e(x_t)) · up_e(x_t))`, e = experts_tk: `OlmoeExperts` without its loop.

    Args:
        module: has `gate_up_proj` (E, 2I, H), `down_proj` (E, H, I) and `act_fn`.
        x: (T, H); experts: (T, K) indices; weights: (T, K).
    Returns:
        (T, H)
    """
    tokens, per_token = experts.shape
    by_expert, order = experts.flatten().sort()  # order (R,): the r-th sorted row is row order[r] of (T, K)
    place = torch.empty_like(order).scatter_(0, order, torch.arange(order.numel(), device=order.device))
    ends = torch.searchsorted(  # (E,): where each expert's rows end
        by_expert, torch.arange(module.gate_up_proj.shape[0], device=x.device), right=True, out_int32=True
    )
    rows = TakeRows.apply(x, order // per_token, place)  # (R, H), sorted by expert
    gate, up = grouped_linear(rows, module.gate_up_proj, ends).chunk(2, dim=-1)
    output = grouped_linear(module.act_fn(gate) * up, module.down_proj, ends)  # (R, H)
    output = TakeRows.apply(output, place, order).view(tokens, per_token, -1)  # back in the order of (T, K)
    return (weights.to(output.dtype).unsqueeze(1) @ output).squeeze(1).to(x.dtype)


def grouped_linear(rows: Tensor, weight: Tensor, ends: Tensor) -> Tensor:
    """`rows @ weight[e].T` for each expert's rows. rows (R, in), weight (E, out, in), ends (E,) -> (R, out).

    Under autocast the product is taken in autocast's dtype, which neither kernel does by itself. Where `F.grouped_mm`
    cannot work, transformers' loop behind one operator does: rows that are no multiple of 16 bytes, and dtypes other
    than bf16 while compiling.
    """
    device = rows.device.type
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else weight.dtype
    rows, weight = rows.to(dtype), weight.to(dtype).transpose(-2, -1)  # (E, in, out)
    aligned = all(size * dtype.itemsize % 16 == 0 for size in weight.shape[1:])
    if aligned and (dtype == torch.bfloat16 or not torch.compiler.is_compiling()):
        return F.grouped_mm(rows, weight, offs=ends)
    return torch.ops.transformers.grouped_mm_fallback(rows, weight, ends)


class TakeRows(torch.autograd.Function):
    """`x[source]`, where every row of x is taken equally often: `inverse` lists where, row by row.

    The gradient of a row is the sum of the gradients it was copied to. Reading them through `inverse` needs no atomic
    addition: it is deterministic, and bf16 sums are taken in fp32.
    """

    @staticmethod
    def forward(ctx, x: Tensor, source: Tensor, inverse: Tensor) -> Tensor:
        """x (N, H), source (R,) into N, inverse (R,) into R -> (R, H)."""
        ctx.save_for_backward(inverse)
        ctx.rows = x.shape[0]
        return x.index_select(0, source)

    @staticmethod
    def backward(ctx, gradient: Tensor):
        (inverse,) = ctx.saved_tensors
        gathered = gradient.index_select(0, inverse)
        if inverse.numel() > ctx.rows:
            gathered = gathered.view(ctx.rows, -1, gathered.shape[-1]).sum(dim=1)
        return gathered, None, None
