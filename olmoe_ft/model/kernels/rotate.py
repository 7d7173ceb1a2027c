"""Triton: rotary position embeddings of all heads of a token in one reading.

Shapes: T tokens, N heads, D head size.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor


def rotate(x: Tensor, cos: Tensor, sin: Tensor, back: bool = False) -> Tensor:
    """Turn each pair (x_i, x_{i+D/2}) by its token's angle, or back; every product is rounded, as in PyTorch.

    x (T, N, D), cos and sin (T, D), all contiguous -> (T, N, D).
    """
    tokens, heads, size = x.shape
    out = torch.empty_like(x)
    if x.numel():
        block = triton.next_power_of_2(heads * (size // 2))
        _rotate[(tokens,)](x, cos, sin, out, heads, -1.0 if back else 1.0, HALF=size // 2, BLOCK=block)
    return out


@triton.jit
def _rotate(x, cos, sin, out, heads, sign, HALF: tl.constexpr, BLOCK: tl.constexpr):
    token = tl.program_id(0).to(tl.int64)
    pair = tl.arange(0, BLOCK)
    inside = pair < heads * HALF
    head, place = pair // HALF, pair % HALF
    first = token * heads * HALF * 2 + head * HALF * 2 + place
    low = tl.load(x + first, mask=inside, other=0.0).to(tl.float32)
    high = tl.load(x + first + HALF, mask=inside, other=0.0).to(tl.float32)
    angle = token * HALF * 2 + place
    dtype = out.dtype.element_ty
    cos_low = tl.load(cos + angle, mask=inside, other=0.0).to(tl.float32)
    cos_high = tl.load(cos + angle + HALF, mask=inside, other=0.0).to(tl.float32)
    sin_low = tl.load(sin + angle, mask=inside, other=0.0).to(tl.float32) * sign
    sin_high = tl.load(sin + angle + HALF, mask=inside, other=0.0).to(tl.float32) * sign
    turned_low = (low * cos_low).to(dtype).to(tl.float32) - (high * sin_low).to(dtype).to(tl.float32)
    turned_high = (high * cos_high).to(dtype).to(tl.float32) + (low * sin_high).to(dtype).to(tl.float32)
    tl.store(out + first, turned_low.to(dtype), mask=inside)
    tl.store(out + first + HALF, turned_high.to(dtype), mask=inside)
