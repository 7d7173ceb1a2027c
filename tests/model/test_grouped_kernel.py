"""The Triton product of rows sorted by expert beside a loop in fp64, and which card it is chosen for.

Without a GPU it runs in Triton's interpreter (tests/conftest.py). Whatever it must not read, and its result before it
is written, holds NaN.
"""

import pytest
import torch
from support.networks import SMALL
from torch.func import functional_call
from torch.nn import functional as F

from olmoe_ft.model import OlmoeConfig
from olmoe_ft.model.experts import matmul
from olmoe_ft.model.experts.autograd import grouped_experts
from olmoe_ft.model.experts.dispatch import Routes
from olmoe_ft.model.experts.layer import OlmoeExperts
from olmoe_ft.model.experts.matmul import AllExperts, choose_strategy, kernel_for

pytest.importorskip("triton", reason="Triton is made for Linux alone")
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
COUNTS = [0, 37, 1, 0, 130, 0]  # rows of an expert; a tile has 64
BF16, FP16, FP32, FP64 = torch.bfloat16, torch.float16, torch.float32, torch.float64


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


@pytest.mark.parametrize(("dtype", "rank", "tolerance"), [(FP32, 8, 2e-5), (BF16, 16, 6e-2)])
def test_the_mixture_by_the_kernel_is_the_plain_loop(monkeypatch, dtype, rank, tolerance):
    """As on an RTX 3090, beside the loop in fp64: output and every gradient, adapters' too; an expert nobody chose."""
    monkeypatch.setattr(matmul, "capability_of", lambda x: (8, 6))
    monkeypatch.setattr(matmul, "use_triton", lambda x: True)
    monkeypatch.delattr(F, "grouped_mm")  # no other way is taken
    monkeypatch.delattr(matmul, "on_each_expert")
    sizes = {"hidden_size": 36, "num_attention_heads": 1, "intermediate_size": 20, "num_experts": 4}
    module = OlmoeExperts(OlmoeConfig(**{**SMALL, **sizes}, experts_implementation="eager"))
    chosen = torch.rand(9, 3).topk(2).indices
    chosen = (chosen + (chosen > 1)).to(DEVICE)  # never expert 2
    given = {"x": torch.randn(9, 36), "weights": torch.rand(9, 2)}
    given |= {name: torch.randn(weight.shape) / 5 for name, weight in module.named_parameters()}
    for name, weight in module.named_parameters():
        experts, out, inner = weight.shape
        given |= {f"{name}.B": torch.randn(experts, out, rank) / 5, f"{name}.A": torch.randn(experts, rank, inner) / 5}
    given = {name: value.to(DEVICE, dtype).requires_grad_() for name, value in given.items()}
    exact = {name: value.detach().double().requires_grad_() for name, value in given.items()}
    for name in ("gate_up_proj", "down_proj"):
        module._parameters[name] = given[name]
        module.low_rank_factors[name] = [(given[f"{name}.B"], given[f"{name}.A"], 0.5)]
    folded = {name: exact[name] + exact[f"{name}.B"] @ exact[f"{name}.A"] / 2 for name in module._parameters}
    y = grouped_experts(module, given["x"], chosen, given["weights"])
    expected = functional_call(module, folded, (exact["x"], chosen, exact["weights"]))
    direction = torch.randn(9, 36, device=DEVICE).to(dtype)
    gradients = torch.autograd.grad((y * direction).sum(), list(given.values()))
    wanted = torch.autograd.grad((expected * direction).sum(), list(exact.values()))
    for name, found, right in zip(["y", *given], [y, *gradients], [expected, *wanted], strict=True):
        right = right.detach()
        scale = right.square().mean().sqrt()  # some twenty roundings of numbers as large
        torch.testing.assert_close(found.double() / scale, right / scale, rtol=tolerance, atol=tolerance, msg=name)
    assert not gradients[2][2].any() and gradients[2][0].any()


CARDS = {"T4": (7, 5), "A100": (8, 0), "RTX 3090": (8, 6), "RTX 4090": (8, 9), "RTX 5090": (12, 0), "none": None}
CARDS |= {"H100": (9, 0), "B200": (10, 0), "B300": (10, 3)}
OF_TORCH = {"H100", "B200", "B300"}


@pytest.mark.parametrize(
    ("dtype", "width", "by_torch"),
    [(BF16, 16, OF_TORCH | {"none"}), (BF16, 12, set()), (FP16, 16, {"none"}), (FP32, 4, {"none"}), (FP32, 3, set())],
)
def test_which_kernel_runs_on_which_card(dtype, width, by_torch):
    for name, capability in CARDS.items():
        ours = "triton" if name not in ("T4", "none") else None
        for triton in (True, False):
            expected = "torch" if name in by_torch else ours if triton else None
            assert kernel_for(capability, dtype, (64, width), triton) == expected, (name, triton)
            assert kernel_for(capability, FP64, (64, width), triton) is None


@pytest.mark.parametrize(
    ("triton", "dtype", "expected"), [(True, BF16, "at_once"), (False, BF16, "by_expert"), (True, FP64, "by_expert")]
)
def test_the_strategy_depends_on_the_card(monkeypatch, triton, dtype, expected):
    monkeypatch.setattr(matmul, "capability_of", lambda x: (8, 9))
    monkeypatch.setattr(matmul, "use_triton", lambda x: triton)
    routes = Routes.of(torch.tensor([[0, 1]]), 2)
    assert choose_strategy(routes, [torch.empty(2, 8, 3, dtype=dtype), torch.empty(2, 3, 4, dtype=dtype)]) == expected


def test_gradients_of_experts_without_rows_are_zero_where_torch_leaves_what_was_there(monkeypatch):
    """As reported for B200 (pytorch issue #172439)."""
    monkeypatch.setattr(matmul, "capability_of", lambda x: (10, 0))
    ends = ends_of([0, 3, 0, 2]).cpu()
    plain = F.grouped_mm

    def leaving(left, right, offs):
        product = plain(left, right, offs=offs)
        product[[0, 2]] = torch.nan
        return product

    monkeypatch.setattr(F, "grouped_mm", leaving)
    left, right = torch.randn(5, 8).bfloat16(), torch.randn(5, 16).bfloat16()
    gradient = AllExperts(Routes(ends, ends, ends, ends)).weight_gradient(left, right, None)
    for expert, rows in enumerate([slice(0), slice(0, 3), slice(0), slice(3, 5)]):
        assert_rounded(gradient[expert], left[rows].double().t() @ right[rows].double())
