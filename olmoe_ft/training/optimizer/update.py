"""One step of the optimizer in PyTorch, on any device; the Triton kernel does the same.

Shapes: N weights of a piece, in blocks of 1,024 (the last may be shorter).
"""

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import is_fake
from torch.nn import functional as F

from olmoe_ft.training.optimizer.layout import (
    BLOCK,
    BY_PLACE,
    BY_STEP,
    FOR_M,
    M_BITS,
    M_MOST,
    M_SHIFT,
    OCTAVES,
    OFFSET,
    OFFSET_BITS,
    V_MOST,
    V_SHIFT,
    Step,
)

PIECE = 512 * BLOCK  # weights at a time; temporary results take about 100 bytes per weight
NAN = 0x7FC00000


@torch.no_grad()
def update(weight: Tensor, remainder: Tensor, moments: Tensor, exponents: Tensor, gradient: Tensor, step: Step) -> None:
    """AdamW (Loshchilov & Hutter 2019, algorithm 2) in fp32 on the numbers in the bits (`layout.py`), in place.

    With the running averages m and v, `w = w (1 - lr decay) - lr (m - later e) / (sqrt(v) + eps)`. e is the change of m
    when it is rounded to 6 bits. In later steps it would move the weight by `later` times e in total, which is
    corrected here at once.

    Args:
        weight: bf16, contiguous; remainder, moments: int16 of its shape; exponents: uint8, one a block.
        gradient: of the weight's shape, any float dtype.
    """
    flat, by_place = weight.view(-1), gradient.reshape(-1)
    # for a fake tensor one piece is enough to see the memory
    for start in range(0, PIECE if is_fake(flat) else flat.numel(), PIECE):
        piece = slice(start, start + PIECE)
        blocks = slice(start // BLOCK, (start + PIECE) // BLOCK)
        _update(
            flat[piece],
            remainder.view(-1)[piece],
            moments.view(-1)[piece],
            exponents[blocks],
            by_place[piece],
            step,
            start,
        )


def _update(
    weight: Tensor, remainder: Tensor, moments: Tensor, exponents: Tensor, gradient: Tensor, step: Step, start: int
) -> None:
    coming = gradient.float()
    m, v = read_moments(moments, exponents)
    m = m + step.first * (coming - m)
    v = v + step.second * (coming * coming - v)
    kept = write_moments(m, v, moments, exponents, step.number, start)
    master = read_master(weight, remainder)
    towards = m - step.later * (kept - m)
    write_master(master * step.decay - step.lr * (towards / (v.sqrt() + step.eps)), weight, remainder)


def read_master(weight: Tensor, remainder: Tensor) -> Tensor:
    """The fp32 weights that a bf16 weight and its remainder encode, of the weight's shape."""
    return _as_float((_bits16(weight) << 16) + remainder.to(torch.int32))


def write_master(master: Tensor, weight: Tensor, remainder: Tensor) -> None:
    """Split fp32 into the nearest bf16 (away from 0 at a tie) and the remainder, in place."""
    bits = _as_bits(master)
    nearest = (bits + 0x8000) >> 16
    bad = master.isnan()  # NaN, whose bits may overflow the integer
    nearest, left = torch.where(bad, NAN >> 16, nearest), torch.where(bad, 0, bits - (nearest << 16))
    weight.view(torch.int16).copy_(nearest)
    remainder.copy_(left)


def read_moments(moments: Tensor, exponents: Tensor) -> tuple[Tensor, Tensor]:
    """m and v of a piece, (N,) fp32 each."""
    word = moments.to(torch.int32) & 0xFFFF
    v = _decode_v(word >> (M_BITS + 1), _base(exponents, word.numel()))
    return _decode_m(word & M_MOST, word & (M_MOST + 1), v.sqrt()), v


def write_moments(m: Tensor, v: Tensor, moments: Tensor, exponents: Tensor, number: int, start: int) -> Tensor:
    """Encode m and v, in place; returns the m that will be decoded.

    Args:
        number: of the step; with `start`, the index of the first weight in its tensor, it gives the offsets.
    """
    bits = _as_bits(v)
    blocks = F.pad(bits, (0, -bits.numel() % BLOCK)).view(-1, BLOCK)
    exponents.copy_(((blocks.amax(dim=1) >> 23) + 1).clamp(max=255))
    base = _base(exponents, bits.numel())
    places = torch.arange(start, start + bits.numel(), device=bits.device)
    phase = places * BY_PLACE + number * BY_STEP
    rounded = (bits - base + _offset(phase, V_SHIFT)) >> V_SHIFT
    v_code = torch.where(v == 0, 0, (rounded + 1).clamp(1, V_MOST))
    root = _decode_v(v_code, base).sqrt()
    ratio = torch.where(root > 0, m / root, 0)
    above = _as_bits(ratio.abs() + OFFSET) - OFFSET_BITS
    m_code = ((above + _offset(phase + FOR_M, M_SHIFT)) >> M_SHIFT).clamp(0, M_MOST)
    sign = torch.where(ratio < 0, M_MOST + 1, 0).to(torch.int32)
    moments.copy_((v_code << (M_BITS + 1)) | sign | m_code)
    return _decode_m(m_code, sign, root)


def _base(exponents: Tensor, count: int) -> Tensor:
    """The bits of the smallest v of each weight's block, (count,) int32."""
    lowest = (exponents.to(torch.int32) - OCTAVES).clamp(min=1) << 23
    return lowest.repeat_interleave(BLOCK)[:count]


def _decode_v(code: Tensor, base: Tensor) -> Tensor:
    return torch.where(code == 0, 0, _as_float(base + ((code - 1) << V_SHIFT)))


def _decode_m(code: Tensor, sign: Tensor, root: Tensor) -> Tensor:
    size = (_as_float((code << M_SHIFT) + OFFSET_BITS) - OFFSET) * root
    return torch.where(sign != 0, -size, size)


def _offset(phase: Tensor, bits: int) -> Tensor:
    """The upper `bits` of a phase of 32 bits."""
    return ((phase & 0xFFFFFFFF) >> (32 - bits)).to(torch.int32)


def _bits16(weight: Tensor) -> Tensor:
    return weight.view(torch.int16).to(torch.int32)


def _as_bits(number: Tensor) -> Tensor:
    return number.view(torch.int32)


def _as_float(bits: Tensor) -> Tensor:
    return bits.to(torch.int32).view(torch.float32)
