"""Triton: SwiGLU forward, and its whole backward pass in one reading of `gate_up`.

Shapes: R rows, I intermediate.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor


def swiglu(gate_up: Tensor) -> Tensor:
    """`silu(gate) · up`: gate_up (R, 2I) contiguous -> (R, I)."""
    rows, width = gate_up.shape[0], gate_up.shape[1] // 2
    out = gate_up.new_empty(rows, width)
    if rows:
        _forward[(rows, triton.cdiv(width, BLOCK))](gate_up, out, width, BLOCK=BLOCK)
    return out


def swiglu_backward(
    gate_up: Tensor, gradient: Tensor, weights: Tensor, over_gate_up: bool = False
) -> tuple[Tensor, Tensor, Tensor]:
    """All that a row's gradient before its weight gives; products and sums in fp32.

    A program reads each number before it writes there, and no other program's: so results may take the place of inputs.

    Args:
        gate_up: (R, 2I); gradient: (R, I), of the product before its weight; weights: (R,).
        over_gate_up: whether the gradient of gate_up takes its place.
    Returns:
        the weighted product `w · silu(gate) · up` (R, I), in the place of the gradient; the gradient of gate_up (R, 2I)
        under the weighted gradient; and that of the weights (R,).
    """
    rows, width = gradient.shape
    weighted, to_gate_up = gradient, gate_up if over_gate_up else torch.empty_like(gate_up)
    to_weights = torch.empty_like(weights)
    if rows:
        _backward[(rows,)](gate_up, gradient, weights, weighted, to_gate_up, to_weights, width, BLOCK=BLOCK)
    return weighted, to_gate_up, to_weights


BLOCK = 1024


@triton.jit
def _forward(gate_up, out, width, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    column = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = column < width
    gate = tl.load(gate_up + row * 2 * width + column, mask=inside, other=0.0).to(tl.float32)
    up = tl.load(gate_up + row * 2 * width + width + column, mask=inside, other=0.0).to(tl.float32)
    silu = (gate * tl.sigmoid(gate)).to(out.dtype.element_ty).to(tl.float32)  # rounded between, as in two operations
    tl.store(out + row * width + column, (silu * up).to(out.dtype.element_ty), mask=inside)


@triton.jit
def _backward(gate_up, gradient, weights, weighted, to_gate_up, to_weights, width, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    weight = tl.load(weights + row).to(tl.float32)
    total = tl.zeros((), dtype=tl.float32)
    for start in range(0, width, BLOCK):
        column = start + tl.arange(0, BLOCK)
        inside = column < width
        gate = tl.load(gate_up + row * 2 * width + column, mask=inside, other=0.0).to(tl.float32)
        up = tl.load(gate_up + row * 2 * width + width + column, mask=inside, other=0.0).to(tl.float32)
        coming = tl.load(gradient + row * width + column, mask=inside, other=0.0).to(tl.float32)
        sigmoid = tl.sigmoid(gate)
        silu = gate * sigmoid
        total += tl.sum(coming * silu * up)
        coming *= weight
        dtype = weighted.dtype.element_ty
        tl.store(weighted + row * width + column, (weight * silu * up).to(dtype), mask=inside)
        slope = sigmoid * (1 + gate * (1 - sigmoid))
        tl.store(to_gate_up + row * 2 * width + column, (coming * up * slope).to(dtype), mask=inside)
        tl.store(to_gate_up + row * 2 * width + width + column, (coming * silu).to(dtype), mask=inside)
    tl.store(to_weights + row, total.to(to_weights.dtype.element_ty))
