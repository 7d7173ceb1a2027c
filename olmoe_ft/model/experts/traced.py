"""The experts as operations that torch can trace, transform and compile.

They compute what `autograd.py` does. That one has a backward pass written by hand around threads and buffers, which
torch cannot look into; here autograd finds the backward pass, but for the two sums below.

Shapes: T tokens, H hidden, I intermediate, E experts, K experts per token, R = T·K rows (a token once per expert),
r rank.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from olmoe_ft.model.experts.activation import Activation
from olmoe_ft.model.experts.dispatch import Routes, by_token


def traced_experts(
    x: Tensor,
    weights: Tensor,
    routes: Routes,
    stacks: Sequence[Tensor],
    adapters: Sequence[Sequence[tuple[Tensor, Tensor]]],
    activation: Activation,
) -> Tensor:
    """x (T, H), weights (T, K), gate_up (E, 2I, H) and down (E, H, I), B and A of their adapters -> (T, H)."""
    order, place, _, ends = routes
    rows = Dispatch.apply(x, order, place)  # (R, H), sorted by expert
    gate, up = adapted_linear(rows, stacks[0], ends, adapters[0]).chunk(2, dim=-1)
    output = adapted_linear(activation(gate) * up, stacks[1], ends, adapters[1])  # (R, H)
    return Combine.apply(output, weights, order, place)


def adapted_linear(rows: Tensor, weight: Tensor, ends: Tensor, adapters: Sequence[tuple[Tensor, Tensor]]) -> Tensor:
    """`rows @ W_e.T + (rows @ A_e.T) @ B_e.T`, summed over the adapters."""
    output = grouped_linear(rows, weight, ends)
    for b, a in adapters:
        output = output + grouped_linear(grouped_linear(rows, a, ends), b, ends)
    return output


def grouped_linear(rows: Tensor, weight: Tensor, ends: Tensor) -> Tensor:
    """`rows @ weight[e].T` for each expert's rows. rows (R, in), weight (E, out, in), ends (E,) -> (R, out).

    Where `F.grouped_mm` cannot work, transformers' loop behind one operator does: rows that are no multiple of 16
    bytes, fp64, and while compiling every dtype but bf16.
    """
    weight = weight.transpose(-2, -1)  # (E, in, out)
    aligned = all(size * weight.dtype.itemsize % 16 == 0 for size in weight.shape[1:])
    compiling = torch.compiler.is_compiling()
    known = (torch.bfloat16,) if compiling else (torch.bfloat16, torch.float16, torch.float32)
    if aligned and weight.dtype in known:
        return F.grouped_mm(rows, weight, offs=ends)
    return torch.ops.transformers.grouped_mm_fallback(rows, weight, ends)


class Dispatch(torch.autograd.Function):
    """Each token's row, once per expert, sorted by expert: `rows[r] = x[order[r] // K]`.

    Backward: `dx[t] = sum_k drows[place[t, k]]`. Each token reads its K rows, by the inverse of `order`, instead of
    rows being added to their token: the result does not depend on an order of additions, and bf16 sums are in fp32.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, order: Tensor, place: Tensor) -> Tensor:
        """x (T, H), order (R,), place (T, K) its inverse -> (R, H)."""
        return x.index_select(0, order // place.shape[1])

    @staticmethod
    def setup_context(ctx, inputs, output) -> None:
        ctx.save_for_backward(inputs[2])

    @staticmethod
    def backward(ctx, gradient: Tensor):
        (place,) = ctx.saved_tensors
        return by_token(gradient, place).sum(dim=1), None, None


class Combine(torch.autograd.Function):
    """The experts' outputs back in the tokens' order, weighted and summed: `y[t] = sum_k w[t, k] rows[place[t, k]]`.

    As in transformers, products are rounded before they are summed (in fp32): in bf16 a later router then gets the
    same logits as there, and chooses the same experts.
    Backward: `dw[t, k] = <dy[t], rows[place[t, k]]>`, `drows[r] = w[order[r]] dy[order[r] // K]`.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(rows: Tensor, weights: Tensor, order: Tensor, place: Tensor) -> Tensor:
        """rows (R, H) sorted by expert, weights (T, K), order (R,), place (T, K) its inverse -> (T, H)."""
        return by_token(rows, place).mul_(weights.unsqueeze(-1)).sum(dim=1)  # in place: saves (R, H)

    @staticmethod
    def setup_context(ctx, inputs, output) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx, gradient: Tensor):
        rows, weights, order, place = ctx.saved_tensors
        to_weights = (by_token(rows, place) @ gradient.unsqueeze(-1)).squeeze(-1)  # (T, K)
        to_rows = gradient.index_select(0, order // weights.shape[1])  # (R, H)
        to_rows.mul_(weights.flatten().index_select(0, order).unsqueeze(-1))
        return to_rows, to_weights, None, None
