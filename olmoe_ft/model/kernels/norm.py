"""Triton: root-mean-square normalisation forward and backward, a row in one reading.

Shapes: T rows, H hidden.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

# That each sum the weight's gradient over their share of rows: some 8 on each of an H100's 132 multiprocessors, as
# one program has a single row on its way, and two sums to wait for.
PROGRAMS = 1024


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """x (T, H) contiguous, weight (H,) -> `weight * x / rms(x)` in the dtype of x, and 1 / rms(x) (T,) fp32."""
    out, scale = torch.empty_like(x), x.new_empty(x.shape[0], dtype=torch.float32)
    if len(x):
        block = triton.next_power_of_2(x.shape[1])
        _forward[(len(x),)](x, weight, out, scale, x.shape[1], eps, BLOCK=block)
    return out, scale


def rms_norm_backward(gradient: Tensor, x: Tensor, weight: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
    """The gradients of x (T, H) and weight (H,)."""
    to_x = torch.empty_like(x)
    programs = min(PROGRAMS, len(x))
    partial = x.new_empty(programs, x.shape[1], dtype=torch.float32)
    if len(x):
        block = triton.next_power_of_2(x.shape[1])
        _backward[(programs,)](gradient, x, weight, scale, to_x, partial, len(x), x.shape[1], programs, BLOCK=block)
    return to_x, partial.sum(dim=0).to(weight.dtype)


@triton.jit
def _forward(x, weight, out, scale, hidden, eps, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    column = tl.arange(0, BLOCK)
    inside = column < hidden
    values = tl.load(x + row * hidden + column, mask=inside, other=0.0).to(tl.float32)
    factor = 1 / tl.sqrt(tl.sum(values * values) / hidden + eps)
    dtype = out.dtype.element_ty
    normalised = (values * factor).to(dtype).to(tl.float32)
    by = tl.load(weight + column, mask=inside, other=0.0).to(tl.float32)
    tl.store(out + row * hidden + column, (by * normalised).to(dtype), mask=inside)
    tl.store(scale + row, factor)


@triton.jit
def _backward(gradient, x, weight, scale, to_x, partial, rows, hidden, programs, BLOCK: tl.constexpr):
    program = tl.program_id(0)
    column = tl.arange(0, BLOCK)
    inside = column < hidden
    by = tl.load(weight + column, mask=inside, other=0.0).to(tl.float32)
    total = tl.zeros((BLOCK,), dtype=tl.float32)
    for row in range(program, rows, programs):
        place = (tl.zeros((), dtype=tl.int64) + row) * hidden + column
        coming = tl.load(gradient + place, mask=inside, other=0.0).to(tl.float32)
        factor = tl.load(scale + row)
        normalised = tl.load(x + place, mask=inside, other=0.0).to(tl.float32) * factor
        total += coming * normalised
        coming *= by
        shared = tl.sum(coming * normalised) / hidden
        tl.store(to_x + place, ((coming - normalised * shared) * factor).to(to_x.dtype.element_ty), mask=inside)
    tl.store(partial + program * hidden + column, total, mask=inside)
