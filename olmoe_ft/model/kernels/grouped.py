"""Triton: `F.grouped_mm`, products of rows sorted by expert, for the cards that torch has no kernel for.

The host never asks how many rows an expert has. It launches as many programs as any division of the rows could need;
a program finds its expert in `ends`, or that there is nothing left for it.

Shapes: R rows sorted by expert, E experts; M, N and K the two sizes of a product and what is summed over.
"""

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

GROUP = 8  # tiles of rows that take turns at the same columns, so that both stay in the L2 cache


def grouped_mm(left: Tensor, right: Tensor, ends: Tensor) -> Tensor:
    """Each expert's product, summed in fp32 (`torch.backends.cuda.matmul.fp32_precision` holds for fp32).

    Args:
        left: (R, K), or (M, R) where the sum is over an expert's rows.
        right: (E, K, N), or (R, N). Any strides, of one dtype: bf16, fp16 or fp32.
        ends: (E,) int32, where each expert's rows end; the last is R.
    Returns:
        (R, N), or (E, M, N) with zeros for an expert without rows.
    """
    assert left.dtype == right.dtype != torch.float64 and ends.dtype == torch.int32
    return _rows(left, right, ends) if right.dim() == 3 else _sums_of_rows(left, right, ends)


def _rows(left: Tensor, right: Tensor, ends: Tensor) -> Tensor:
    rows, (experts, depth, width) = left.shape[0], right.shape
    out = left.new_empty(rows, width)
    tile = Tile.of(rows // experts, width, depth, left.dtype)
    tiles = min(rows, (rows + experts * (tile.m - 1)) // tile.m)  # `ceil(n / m)`, summed over experts, is not more
    if tiles:
        by_rows[(tiles * triton.cdiv(width, tile.n),)](
            *(left, right, out, ends, tiles, experts, width, depth, *left.stride(), *right.stride()),
            **tile.constants(left.dtype),
            EXPERTS=triton.next_power_of_2(experts),
        )
    return out


def _sums_of_rows(left: Tensor, right: Tensor, ends: Tensor) -> Tensor:
    experts, height, width = ends.numel(), left.shape[0], right.shape[1]
    out = left.new_empty(experts, height, width)
    tile = Tile.of(height, width, left.shape[1] // experts, left.dtype)
    over_rows[(experts * triton.cdiv(height, tile.m) * triton.cdiv(width, tile.n),)](
        *(left, right, out, ends, height, width, *left.stride(), *right.stride()), **tile.constants(left.dtype)
    )
    return out


class Tile(NamedTuple):
    """What a program multiplies at a time: sizes, powers of two of 16 and more."""

    m: int
    n: int
    k: int

    @classmethod
    def of(cls, m: int, n: int, k: int, dtype: torch.dtype) -> "Tile":
        """For a product of about these sizes. A block then takes at most 54 KB of shared memory on small cards, which
        give it 99, and 72 on sm_90 (tests/support/compile_kernels.py).
        """
        largest = 128 if dtype.itemsize == 2 else 64  # fp32 has no tensor cores: operands take registers
        m, n, k = (max(16, triton.next_power_of_2(size)) for size in (m, n, k))
        deepest = (64 if min(m, n) > 32 else 128) // dtype.itemsize
        return cls(min(largest, m), min(largest, n), min(deepest, k))

    def constants(self, dtype: torch.dtype) -> dict[str, int | str]:
        fast = dtype == torch.float32 and torch.backends.cuda.matmul.fp32_precision == "tf32"
        sizes = {"BLOCK_M": self.m, "BLOCK_N": self.n, "BLOCK_K": self.k}
        return {**sizes, "PRECISION": "tf32" if fast else "ieee", "GROUP": GROUP, "num_warps": 4, "num_stages": 4}


@triton.jit(do_not_specialize=["tiles"])  # it changes from step to step
def by_rows(
    left, right, out, ends, tiles, experts, width, depth, left_m, left_k, right_e, right_k, right_n,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr, PRECISION: tl.constexpr, GROUP: tl.constexpr,
    EXPERTS: tl.constexpr,
):  # fmt: skip
    across = tl.cdiv(width, BLOCK_N)
    tile, column = tl.swizzle2d(tl.program_id(0) // across, tl.program_id(0) % across, tiles, across, GROUP)
    each = tl.arange(0, EXPERTS)
    start = tl.load(ends + each - 1, mask=(each > 0) & (each < experts), other=0)
    end = tl.load(ends + each, mask=each < experts, other=0)
    own = tl.where(each < experts, tl.cdiv(end - start, BLOCK_M), 0)  # tiles of each expert
    until = tl.cumsum(own)
    expert = tl.sum((until <= tile).to(tl.int32))
    if expert >= experts:
        return
    first = tl.sum(tl.where(each == expert, start + (tile - until + own) * BLOCK_M, 0))
    rows = tl.load(ends + expert) - first
    row, column = first.to(tl.int64), (column * BLOCK_N).to(tl.int64)  # offsets into all of a tensor pass 2^31
    total = product(
        left + row * left_m, right + expert.to(tl.int64) * right_e + column * right_n, rows, width - column, depth,
        left_m, left_k, right_k, right_n, BLOCK_M, BLOCK_N, BLOCK_K, PRECISION,
    )  # fmt: skip
    store(out + row * width + column, total, rows, width - column, width, BLOCK_M, BLOCK_N)


@triton.jit
def over_rows(
    left, right, out, ends, height, width, left_m, left_k, right_k, right_n,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr, PRECISION: tl.constexpr, GROUP: tl.constexpr,
):  # fmt: skip
    down, across = tl.cdiv(height, BLOCK_M), tl.cdiv(width, BLOCK_N)
    expert, place = tl.program_id(0) // (down * across), tl.program_id(0) % (down * across)
    row, column = tl.swizzle2d(place // across, place % across, down, across, GROUP)
    row, column = (row * BLOCK_M).to(tl.int64), (column * BLOCK_N).to(tl.int64)
    start = tl.load(ends + expert - 1, mask=expert > 0, other=0)
    count = tl.load(ends + expert) - start
    first = start.to(tl.int64)
    total = product(
        left + row * left_m + first * left_k, right + first * right_k + column * right_n,
        height - row, width - column, count,
        left_m, left_k, right_k, right_n, BLOCK_M, BLOCK_N, BLOCK_K, PRECISION,
    )  # fmt: skip
    place = out + expert.to(tl.int64) * height * width + row * width + column
    store(place, total, height - row, width - column, width, BLOCK_M, BLOCK_N)


@triton.jit
def product(
    left, right, rows, columns, depth, left_m, left_k, right_k, right_n,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """`left @ right`, of which `rows` x `columns` are inside: (BLOCK_M, BLOCK_N) in fp32."""
    m, n, k = tl.arange(0, BLOCK_M)[:, None], tl.arange(0, BLOCK_N)[None, :], tl.arange(0, BLOCK_K)
    left += m * left_m + k[None, :] * left_k
    right += k[:, None] * right_k + n * right_n
    total = tl.zeros((BLOCK_M, BLOCK_N), dtype=tl.float32)
    for done in range(0, depth, BLOCK_K):
        inside = k < depth - done
        a = tl.load(left, mask=(m < rows) & inside[None, :], other=0.0)
        b = tl.load(right, mask=inside[:, None] & (n < columns), other=0.0)
        total = tl.dot(a, b, total, input_precision=PRECISION)
        left += BLOCK_K * left_k
        right += BLOCK_K * right_k
    return total


@triton.jit
def store(out, total, rows, columns, width, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr):
    m, n = tl.arange(0, BLOCK_M)[:, None], tl.arange(0, BLOCK_N)[None, :]
    tl.store(out + m * width + n, total.to(out.dtype.element_ty), mask=(m < rows) & (n < columns))
