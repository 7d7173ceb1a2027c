"""Results beside their fp64 references, element by element; shapes; poisoned memory.

A bf16 number has 8 significant bits: rounding to it changes a number by at most 2^-8 of itself. A sum of n products in
fp32 is off by at most n · 2^-24 of the sum of their sizes whatever its order (Higham 2002, Accuracy and Stability of
Numerical Algorithms, eq. 3.5), which is doubled for matrix units that cut off.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from gpu.part import Part

ROUNDING = 2.0**-8
FP32 = 2.0**-23


@dataclass(frozen=True)
class Shapes:
    """T tokens, K experts per token, E experts, H hidden, I intermediate, N heads, r rank, V vocabulary."""

    tokens: int
    per_token: int
    experts: int
    hidden: int
    inner: int
    heads: int
    rank: int
    vocabulary: int


RELEASED = Shapes(2048, 8, 64, 2048, 1024, 16, 16, 50304)
TINY = Shapes(48, 2, 8, 64, 32, 4, 8, 512)


def shapes(part: Part) -> Shapes:
    return TINY if part.dry else RELEASED


def drawn(part: Part, *shape: int, scale: float = 1.0) -> Tensor:
    return (torch.randn(*shape, device=part.device) * scale).bfloat16()


def poison(part: Part) -> None:
    """Leave freed memory full of NaN, in large blocks and in small ones, so that what no kernel writes shows.

    On a GPU torch's allocator gives these blocks out again; on a CPU nothing is promised.
    """
    large, small = (2**16, 2**8) if part.dry else (2**28, 2**17)  # fp32 numbers: 1 GiB and 512 KiB
    blocks = [torch.full((size,), float("nan"), device=part.device) for size in 8 * [large] + 128 * [small]]
    del blocks


def compare(part: Part, what: str, found: Tensor, exact: Tensor, allowed: Tensor) -> None:
    """Report how far a result is off; it is right if no element differs by more than is allowed there.

    Args:
        found: any dtype; exact, allowed: fp64, of its shape.
    """
    assert found.shape == exact.shape == allowed.shape, (found.shape, exact.shape, allowed.shape)
    error = (found.double() - exact).abs()
    wrong = int((~(error <= allowed)).sum())  # NaN is wrong
    worst = (error / allowed.clamp(min=1e-300)).nan_to_num(0.0, posinf=1e300).max().item() if error.numel() else 0.0
    relative = (error.norm() / exact.norm().clamp(min=1e-300)).item()
    figures = {"worst_of_allowed": round(worst, 3), "error": float(f"{relative:.2e}"), "elements": found.numel()}
    if wrong:
        figures |= {"wrong_elements": wrong, "nan": int(found.isnan().sum())}
    part.report(what, wrong == 0, **figures)


def rounding(part: Part) -> float:
    """Of what a Triton kernel rounds to bf16; the interpreter, in a dry run, cuts off."""
    return 2 * ROUNDING if part.dry else ROUNDING


def after_many(exact: Tensor) -> Tensor:
    """What a result (…, M, N) of several bf16 operations may be off by: 4 roundings of itself, 16 of what its like are.

    A result near zero is a sum whose terms are not, so that its error is that of its row or column, whichever has the
    larger root mean square.
    """
    squares = exact.square()
    rows, columns = squares.mean(dim=-1, keepdim=True), squares.mean(dim=-2, keepdim=True)
    return ROUNDING * (4 * exact.abs() + 16 * torch.maximum(rows, columns).sqrt())
