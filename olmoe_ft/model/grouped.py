"""The experts as grouped matrix products: tokens sorted by expert, one product per projection for all experts.

Shapes: T tokens, H hidden, I intermediate, E experts, K experts per token, R = T·K rows (a token once per expert),
r rank.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import is_fake
from torch.nn import functional as F

OLMOE_GROUPED = "olmoe_grouped"  # the name of this back end, the default one

LowRank = tuple[Tensor, Tensor, float]  # an adapter: B (E, out, r), A (E, r, in), scaling s; the weight is W + s B A


def grouped_experts(module: Any, x: Tensor, experts: Tensor, weights: Tensor) -> Tensor:
    """`y_t = sum_k w_tk · down_e(act(gate_e(x_t)) · up_e(x_t))`, e = experts_tk: `OlmoeExperts` without its loop.

    Args:
        module: has `gate_up_proj` (E, 2I, H), `down_proj` (E, H, I), `act_fn`, and `lent` factors by the weight's name.
        x: (T, H); experts: (T, K) indices; weights: (T, K).
    Returns:
        (T, H)
    """
    per_token = experts.shape[1]
    gate_up, down = module.gate_up_proj, module.down_proj
    by_expert, order = experts.flatten().sort()  # order (R,): the r-th sorted row is row order[r] of (T, K)
    place = torch.empty_like(order).scatter_(0, order, torch.arange(order.numel(), device=order.device))
    ends = torch.searchsorted(  # (E,): where each expert's rows end
        by_expert, torch.arange(gate_up.shape[0], device=x.device), right=True, out_int32=True
    )
    rows = Dispatch.apply(x, order, place, per_token)  # (R, H), sorted by expert
    gate, up = adapted_linear(rows, gate_up, ends, module.lent.get("gate_up_proj", ())).chunk(2, dim=-1)
    output = adapted_linear(module.act_fn(gate) * up, down, ends, module.lent.get("down_proj", ()))  # (R, H)
    return Combine.apply(output, weights.to(output.dtype), order, place).to(x.dtype)


def adapted_linear(rows: Tensor, weight: Any, ends: Tensor, adapters: Sequence[LowRank]) -> Tensor:
    """`rows @ (W_e + s B_e A_e).T` as `rows @ W_e.T + s (rows @ A_e.T) @ B_e.T`, summed over the adapters.

    Nothing of the size of W is made, and no gradient of W where it is frozen.
    """
    output = grouped_linear(rows, weight, ends)
    for b, a, scaling in adapters:
        missing = -a.shape[1] % 8  # rows of whole 16 bytes, which the kernel wants of any rank
        a, b = F.pad(a, (0, 0, 0, missing)), F.pad(b, (0, missing)).contiguous()
        narrow = grouped_linear(rows, a, ends) * scaling  # (R, r)
        output = output.add_(grouped_linear(narrow, b, ends))
    return output


def grouped_linear(rows: Tensor, weight: Any, ends: Tensor) -> Tensor:
    """`rows @ weight[e].T` for each expert's rows. rows (R, in), weight (E, out, in), ends (E,) -> (R, out).

    Under autocast the product is taken in autocast's dtype, which neither kernel does by itself. Where `F.grouped_mm`
    cannot work, transformers' loop behind one operator does: rows that are no multiple of 16 bytes, fp64, and where
    only shapes are worked out (compiling, planning) every dtype but bf16. A weight that is kept packed
    (`adapters/quantize.py`) is unpacked for the product.
    """
    if not isinstance(weight, Tensor):
        return PackedLinear.apply(rows, weight, ends)
    device = rows.device.type
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else weight.dtype
    rows, weight = rows.to(dtype), weight.to(dtype).transpose(-2, -1)  # (E, in, out)
    aligned = all(size * dtype.itemsize % 16 == 0 for size in weight.shape[1:])
    by_shape = torch.compiler.is_compiling() or is_fake(rows)
    known = (torch.bfloat16,) if by_shape else (torch.bfloat16, torch.float16, torch.float32)
    if aligned and dtype in known:
        return F.grouped_mm(rows, weight, offs=ends)
    return torch.ops.transformers.grouped_mm_fallback(rows, weight, ends)


class PackedLinear(torch.autograd.Function):
    """`grouped_linear` of a frozen weight that is unpacked in forward and again in backward, and not kept between."""

    @staticmethod
    def forward(ctx, rows: Tensor, weight: Any, ends: Tensor) -> Tensor:
        """rows (R, in), weight with `dequantize()` -> (E, out, in), ends (E,) -> (R, out)."""
        ctx.weight = weight
        ctx.save_for_backward(ends)
        return grouped_linear(rows, weight.dequantize(), ends)

    @staticmethod
    def backward(ctx, gradient: Tensor):
        (ends,) = ctx.saved_tensors
        return grouped_linear(gradient.contiguous(), ctx.weight.dequantize().transpose(-2, -1), ends), None, None


class Dispatch(torch.autograd.Function):
    """Each token's row, once per expert, sorted by expert: `rows[r] = x[order[r] // K]`.

    Backward: `dx[t] = sum_k drows[place[t, k]]`. It reads through the inverse of `order`, so that it needs no atomic
    additions: it is deterministic, and bf16 sums are taken in fp32.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, order: Tensor, place: Tensor, per_token: int) -> Tensor:
        """x (T, H), order (R,), place (R,) its inverse, K -> (R, H)."""
        return x.index_select(0, order // per_token)

    @staticmethod
    def setup_context(ctx, inputs, output) -> None:
        _, _, place, ctx.per_token = inputs
        ctx.save_for_backward(place)

    @staticmethod
    def backward(ctx, gradient: Tensor):
        (place,) = ctx.saved_tensors
        shape = place.numel() // ctx.per_token, ctx.per_token, gradient.shape[-1]
        return gradient.index_select(0, place).view(shape).sum(dim=1), None, None, None


class Combine(torch.autograd.Function):
    """The experts' outputs back in the tokens' order, weighted and summed: `y[t] = sum_k w[t, k] rows[place[t, k]]`.

    Products are rounded before they are summed (in fp32), as in transformers: in bf16 later layers then route alike.
    Backward: `dw[t, k] = <dy[t], rows[place[t, k]]>`, `drows[r] = w[order[r]] dy[order[r] // K]`.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(rows: Tensor, weights: Tensor, order: Tensor, place: Tensor) -> Tensor:
        """rows (R, H) sorted by expert, weights (T, K), order (R,), place (R,) its inverse -> (T, H)."""
        return by_token(rows, place, weights).mul_(weights.unsqueeze(-1)).sum(dim=1)  # in place: saves (R, H)

    @staticmethod
    def setup_context(ctx, inputs, output) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx, gradient: Tensor):
        rows, weights, order, place = ctx.saved_tensors
        to_weights = (by_token(rows, place, weights) @ gradient.unsqueeze(-1)).squeeze(-1)  # (T, K)
        to_rows = gradient.index_select(0, order // weights.shape[1])  # (R, H)
        to_rows.mul_(weights.flatten().index_select(0, order).unsqueeze(-1))
        return to_rows, to_weights, None, None


def by_token(rows: Tensor, place: Tensor, weights: Tensor) -> Tensor:
    """rows (R, H) sorted by expert -> a new (T, K, H) in the order of weights (T, K)."""
    return rows.index_select(0, place).view(*weights.shape, rows.shape[-1])
