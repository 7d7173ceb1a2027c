"""The Triton product of rows sorted by expert beside a loop in fp64.

Without a GPU it runs in Triton's interpreter (tests/conftest.py). Whatever it must not read, and its result before it
is written, holds NaN.
"""

import pytest
import torch

pytest.importorskip("triton", reason="Triton is made for Linux alone")
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
COUNTS = [0, 37, 1, 0, 130, 0]  # rows of an expert; a tile has 64
BF16, FP16, FP32 = torch.bfloat16, torch.float16, torch.float32


@pytest.fixture(autouse=True)
def exact_products_of_bf16(monkeypatch):
    """The interpreter multiplies the bits of bf16 numbers as if they were integers."""
    if DEVICE == "cpu":
        from triton import language as tl
        from triton.runtime.interpreter import InterpreterBuilder

        plain = InterpreterBuilder.create_dot

        def create_dot(self, a, b, *rest):
            a, b = (self.cast_impl(x, tl.float32) if x.dtype == tl.bfloat16 else x for x in (a, b))
            return plain(self, a, b, *rest)

        monkeypatch.setattr(InterpreterBuilder, "create_dot", create_dot)


@pytest.fixture(autouse=True)
def poisoned_memory(monkeypatch):
    plain = torch.Tensor.new_empty

    def new_empty(self, *size, **options):
        made = plain(self, *size, **options)
        return made.fill_(torch.nan) if made.is_floating_point() else made

    monkeypatch.setattr(torch.Tensor, "new_empty", new_empty)


def amid_nan(dtype: torch.dtype, *shape: int) -> torch.Tensor:
    """Drawn numbers with a row of NaN before and after them and three columns beside them."""
    whole = torch.full((*shape[:-2], shape[-2] + 2, shape[-1] + 3), torch.nan, device=DEVICE, dtype=dtype)
    inside = whole[..., 1:-1, : shape[-1]]
    return inside.copy_(torch.randn(shape))


def ends_of(counts: list[int]) -> torch.Tensor:
    return torch.tensor(counts, device=DEVICE).cumsum(0, dtype=torch.int32)


def assert_rounded(actual: torch.Tensor, exact: torch.Tensor) -> None:
    """An fp32 sum of some hundred products, rounded once; the interpreter cuts bf16 off where GPUs round."""
    last_bit = {BF16: 2**-7, FP16: 2**-10, FP32: 0}[actual.dtype]
    torch.testing.assert_close(actual.double(), exact, rtol=last_bit, atol=2e-5)


@pytest.mark.parametrize(
    ("dtype", "counts", "narrow", "wide"),
    [
        (FP32, COUNTS, 24, 40),
        (BF16, COUNTS, 24, 40),
        (FP16, [17, 0, 1], 16, 70),
        (BF16, [3, 0, 2], 8, 133),  # a rank that is no multiple of 16, more than one tile across
        (BF16, [0, 0, 1], 16, 7),
        (FP32, [0, 5], 1, 1),
        (BF16, [2] * 5, 16, 24),  # one expert more than a power of two, a tile for each
        (FP32, [0, 0], 24, 40),  # no row at all
    ],
)
def test_the_three_products(dtype, counts, narrow, wide):
    from olmoe_ft.model.kernels.grouped import grouped_mm

    ends, bounds = ends_of(counts), [0, *ends_of(counts).tolist()]
    rows, gradient = amid_nan(dtype, sum(counts), wide), amid_nan(dtype, sum(counts), narrow)
    weight = amid_nan(dtype, len(counts), narrow, wide)
    y = grouped_mm(rows, weight.transpose(-2, -1), ends)
    to_rows = grouped_mm(gradient, weight, ends)
    to_weight = grouped_mm(gradient.t(), rows, ends)
    assert {y.dtype, to_rows.dtype, to_weight.dtype} == {dtype}
    assert (y.shape, to_rows.shape, to_weight.shape) == (gradient.shape, rows.shape, weight.shape)
    for expert, (start, end) in enumerate(zip(bounds, bounds[1:], strict=False)):
        x, dy, w = rows[start:end].double(), gradient[start:end].double(), weight[expert].double()
        assert_rounded(y[start:end], x @ w.t())
        assert_rounded(to_rows[start:end], dy @ w)
        assert_rounded(to_weight[expert], dy.t() @ x)


def test_many_tiles_take_turns_and_none_is_left_out(monkeypatch):
    """Tiles of 16 rows and columns, 3 by 3 of them; the turns take two rows of tiles at a time."""
    from olmoe_ft.model.kernels import grouped as kernel

    monkeypatch.setattr(kernel, "GROUP", 2)
    monkeypatch.setattr(kernel.Tile, "of", lambda *sizes: kernel.Tile(16, 16, 16))
    counts = [16, 0, 17]
    rows, weight = amid_nan(FP32, sum(counts), 20), amid_nan(FP32, len(counts), 40, 20)
    y = kernel.grouped_mm(rows, weight.transpose(-2, -1), ends_of(counts))
    to_weight = kernel.grouped_mm(y.t(), rows, ends_of(counts))
    for expert, (x, part) in enumerate(zip(rows.double().split(counts), y.split(counts), strict=True)):
        assert_rounded(part, x @ weight[expert].double().t())
        torch.testing.assert_close(to_weight[expert].double(), part.double().t() @ x, rtol=1e-6, atol=1e-4)


class Unlaunched:
    """In the place of a kernel: keeps the grids."""

    def __init__(self) -> None:
        self.grids: list[tuple[int, ...]] = []

    def __getitem__(self, grid):
        self.grids.append(grid)
        return lambda *arguments, **constants: None


def test_the_host_asks_for_no_value(monkeypatch):
    """On tensors without content: 100 rows of 3 experts make at most 4 tiles of 64 rows (1 + 1 + 98), by 2 columns."""
    from olmoe_ft.model.kernels import grouped as kernel

    for name in ("by_rows", "over_rows"):
        monkeypatch.setattr(kernel, name, Unlaunched())
    rows, ends = torch.empty(100, 40, device="meta"), torch.empty(3, dtype=torch.int32, device="meta")
    kernel.grouped_mm(rows, torch.empty(3, 40, 70, device="meta"), ends)
    kernel.grouped_mm(rows.t(), torch.empty(100, 70, device="meta"), ends)
    assert kernel.by_rows.grids == [(4 * 2,)]
    assert kernel.over_rows.grids == [(3 * 1 * 2,)]
