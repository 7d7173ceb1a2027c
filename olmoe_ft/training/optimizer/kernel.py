"""One step of the optimizer in Triton, one block per program; it reads 8 bytes per weight and writes 6."""

import triton
import triton.language as tl
from torch import Tensor

from olmoe_ft.training.optimizer import layout
from olmoe_ft.training.optimizer.layout import Step

BLOCK = tl.constexpr(layout.BLOCK)
BY_STEP, BY_PLACE, FOR_M = (tl.constexpr(value) for value in (layout.BY_STEP, layout.BY_PLACE, layout.FOR_M))
M_BITS, M_MOST, M_SHIFT = (tl.constexpr(value) for value in (layout.M_BITS, layout.M_MOST, layout.M_SHIFT))
V_MOST, V_SHIFT, OCTAVES = (tl.constexpr(value) for value in (layout.V_MOST, layout.V_SHIFT, layout.OCTAVES))
OFFSET, OFFSET_BITS = tl.constexpr(layout.OFFSET), tl.constexpr(layout.OFFSET_BITS)


def update(weight: Tensor, remainder: Tensor, moments: Tensor, exponents: Tensor, gradient: Tensor, step: Step) -> None:
    """The same as `update.update`; roots and quotients are within 2 units in the last place."""
    _update[(exponents.numel(),)](weight, remainder, moments, exponents, gradient.contiguous(), weight.numel(), *step)


@triton.jit(do_not_specialize=["number"])
def _update(
    weight, remainder, moments, exponents, gradient, count,
    number, lr, decay, eps, first, second, later,
):  # fmt: skip
    block = tl.program_id(0).to(tl.int64)
    place = block * BLOCK + tl.arange(0, BLOCK)
    inside = place < count
    coming = tl.load(gradient + place, mask=inside, other=0.0).to(tl.float32)
    # the averages so far
    word = tl.load(moments + place, mask=inside, other=0).to(tl.int32) & 0xFFFF
    base = _base(tl.load(exponents + block).to(tl.int32))
    v = _decode_v(word >> (M_BITS + 1), base)
    m = _decode_m(word & M_MOST, word & (M_MOST + 1), tl.sqrt(v))
    m = m + first * (coming - m)
    v = v + second * (coming * coming - v)
    # encode the moments
    bits = v.to(tl.int32, bitcast=True)
    exponent = tl.minimum((tl.max(bits, axis=0) >> 23) + 1, 255)
    tl.store(exponents + block, exponent.to(tl.uint8))
    base = _base(exponent)
    phase = place.to(tl.uint32) * BY_PLACE + number.to(tl.uint32) * BY_STEP
    rounded = (bits - base + (phase >> (32 - V_SHIFT)).to(tl.int32)) >> V_SHIFT
    v_code = tl.where(v == 0, 0, tl.minimum(tl.maximum(rounded + 1, 1), V_MOST))
    root = tl.sqrt(_decode_v(v_code, base))
    ratio = tl.where(root > 0, m / tl.where(root > 0, root, 1.0), 0.0)
    above = (tl.abs(ratio) + OFFSET).to(tl.int32, bitcast=True) - OFFSET_BITS
    phase += FOR_M
    m_code = tl.minimum(tl.maximum((above + (phase >> (32 - M_SHIFT)).to(tl.int32)) >> M_SHIFT, 0), M_MOST)
    sign = tl.where(ratio < 0, M_MOST + 1, 0)
    tl.store(moments + place, ((v_code << (M_BITS + 1)) | sign | m_code).to(tl.int16), mask=inside)
    # the weight
    kept = _decode_m(m_code, sign, root)
    towards = m - later * (kept - m)
    upper = tl.load(weight + place, mask=inside, other=0.0).to(tl.int16, bitcast=True).to(tl.int32)
    lower = tl.load(remainder + place, mask=inside, other=0).to(tl.int32)
    master = ((upper << 16) + lower).to(tl.float32, bitcast=True)
    master = master * decay - lr * (towards / (tl.sqrt(v) + eps))
    bits = master.to(tl.int32, bitcast=True)
    nearest = (bits + 0x8000) >> 16
    bad = master != master  # NaN, whose bits would round to a number
    left = tl.where(bad, 0, bits - (nearest << 16))
    nearest = tl.where(bad, 0x7FC0, nearest)
    tl.store(weight + place, nearest.to(tl.int16).to(tl.bfloat16, bitcast=True), mask=inside)
    tl.store(remainder + place, left.to(tl.int16), mask=inside)


@triton.jit
def _base(exponent):
    return tl.maximum(exponent - OCTAVES, 1) << 23


@triton.jit
def _decode_v(code, base):
    return tl.where(code == 0, 0.0, (base + ((code - 1) << V_SHIFT)).to(tl.float32, bitcast=True))


@triton.jit
def _decode_m(code, sign, root):
    size = ((code << M_SHIFT) + OFFSET_BITS).to(tl.float32, bitcast=True) - OFFSET
    size = size * root
    return tl.where(sign != 0, -size, size)
