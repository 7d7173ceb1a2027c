"""The 4 bytes that the optimizer keeps for each bf16 weight; the PyTorch step and the Triton kernel share this layout.

- weight (bf16) and `remainder` (int16): together the fp32 word of the weight, exactly. The weight is its upper half,
  rounded to nearest; the remainder is what rounding left, -32768 to 32767 last bits.
- `moments` (int16): both averages of Adam, bias-corrected. The upper 10 bits are v, a float of 5 bits of exponent and 5
  of mantissa; 0 is 0. The lower 6 are m / sqrt(v): a sign, and 5 bits of log2(1 + 2 |m| / sqrt(v)), linear between
  powers of two, up to 6.8 (it cannot pass 7.3, with the usual betas).
- `exponents` (uint8): of each block of 1,024 weights, the exponent that v's codes count down from: of its largest v,
  and one more for it to grow.

A weight takes 2 + 2 + 2 + 1/1024 bytes, and 2 for its gradient.

All three are functions of the bits of fp32 numbers: adding an offset and shifting rounds, no logarithm is taken. The
offset for v and m is a Weyl sequence (Weyl 1916) over steps and places, by the golden ratio. Over time every fraction
rounds up as often as it should, more evenly than with random numbers. So changes of v by a thousandth, far below its
last bit, add up correctly. The same step has the same offsets in every run.
"""

import math
from functools import lru_cache
from typing import NamedTuple

import numpy as np

BLOCK = 1024  # weights that share an exponent

V_BITS, V_EXPONENT, V_MANTISSA = 10, 5, 5
M_BITS, M_MANTISSA = 5, 3  # without the sign
V_SHIFT, M_SHIFT = 23 - V_MANTISSA, 23 - M_MANTISSA
V_MOST, M_MOST = 2**V_BITS - 1, 2**M_BITS - 1
OCTAVES = 2**V_EXPONENT - 1  # between the smallest exponent of a block and its largest
OFFSET = 0.5  # of m / sqrt(v), below which its code is linear
OFFSET_BITS = 0x3F000000  # of 0.5

BY_STEP, BY_PLACE, FOR_M = 0x9E3779B9, 0x61C88647, 0x7F4A7C15  # 2^32 / golden ratio, its negative, another phase


class Step(NamedTuple):
    """One step's numbers, the same for all weights of a group."""

    number: int
    """Counted from 1."""
    lr: float
    decay: float
    """`1 - lr * weight_decay`, the factor on a weight."""
    eps: float
    first: float
    """The share of the new gradient in the bias-corrected average: `(1 - beta1) / (1 - beta1^number)`."""
    second: float
    """The same for squared gradients."""
    later: float
    """How much an error in m would still count in all later steps together."""

    @classmethod
    def of(cls, number: int, lr: float, betas: tuple[float, float], eps: float, weight_decay: float) -> "Step":
        """With bias correction each moment is a running average; in the first step it is the first value alone."""
        first, second = ((1 - beta) / (1 - beta**number) for beta in betas)
        factors = lr, 1 - lr * weight_decay, eps, first, second, later_share(number, betas[0])
        return cls(number, *(float(np.float32(factor)) for factor in factors))  # fp32, as in a kernel


@lru_cache(maxsize=8)  # every weight needs it in every step
def later_share(number: int, beta1: float) -> float:
    """The weight of a part of the average m in all later steps together: each step multiplies it by `beta1`, and bias
    correction makes it fade faster; summed down to 1e-7."""
    known = 1 - beta1**number
    steps = range(1, 1 + math.ceil(math.log(1e-7) / math.log(beta1))) if beta1 else ()
    return sum(beta1**k * known / (1 - beta1 ** (number + k)) for k in steps)
