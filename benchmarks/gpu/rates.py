"""At what rate does each operation run, at the sizes of a step of 4 x 4,096 tokens? Beside the card's own ceilings.

Shapes: T tokens, K experts per token, R = T·K rows, E experts, H hidden, I intermediate, N heads, D head size.
"""

import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from gpu.attention import attend
from gpu.exact import drawn, shapes
from gpu.mixtures import routed
from gpu.part import Part
from gpu.products import OWN, TORCH, multiplier
from olmoe_ft.model.experts.dispatch import Routes, combine

TOKENS = 16384
ROUNDS = 15
BF16 = 2  # bytes


def run(part: Part) -> None:
    torch.manual_seed(0)
    for what, work in {"ceilings": ceilings, "products": products, "passes": passes, "attention": attention}.items():
        part.attempt(what, partial(work, part), needs=2)


def rate(part: Part, what: str, work: Callable[[], object], flops: float = 0.0, moved: float = 0.0) -> None:
    """The median of some calls, after two that compile and warm up.

    Args:
        moved: bytes that are read and written at least.
    """
    milliseconds = statistics.median([timed(part, work) for _ in range(2 + (1 if part.dry else ROUNDS))][2:])
    found = (
        {"tflops": round(flops / milliseconds / 1e9, 1)} if flops else {"tb_s": round(moved / milliseconds / 1e9, 2)}
    )
    part.report(what, None, ms=round(milliseconds, 3), **found)


def timed(part: Part, work: Callable[[], object]) -> float:
    """Milliseconds, by the device's own clock where it has one."""
    if part.dry:
        began = time.perf_counter()
        work()
        return 1e3 * (time.perf_counter() - began)
    first, last = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    first.record()
    work()
    last.record()
    last.synchronize()
    return first.elapsed_time(last)


def ceilings(part: Part) -> None:
    """A large product, and a copy: what nothing below can pass."""
    size = 256 if part.dry else 8192
    left, right = drawn(part, size, size), drawn(part, size, size)
    rate(part, "ceiling: product", lambda: left @ right, flops=2 * size**3)
    source = torch.zeros(2**16 if part.dry else 2**30, dtype=torch.uint8, device=part.device)
    target = torch.empty_like(source)
    rate(part, "ceiling: copy", lambda: target.copy_(source), moved=2 * source.nbytes)


def _routes(part: Part) -> tuple[Routes, Tensor, int]:
    """Routes and weights as a router gives them, and T."""
    tokens = shapes(part).tokens if part.dry else TOKENS
    experts, weights = routed(part, replace(shapes(part), tokens=tokens))
    return Routes.of(experts, shapes(part).experts), weights, tokens


def products(part: Part) -> None:
    """The three products of a projection and of an adapter, by torch's kernel and by ours."""
    s, (routes, _, _) = shapes(part), _routes(part)
    rows = routes.token.numel()
    x, dy, narrow = drawn(part, rows, s.hidden), drawn(part, rows, 2 * s.inner), drawn(part, rows, s.rank)
    weight, b = drawn(part, s.experts, 2 * s.inner, s.hidden), drawn(part, s.experts, 2 * s.inner, s.rank)
    wide, thin = 4.0 * rows * s.inner * s.hidden, 4.0 * rows * s.inner * s.rank
    for name in (TORCH, OWN):
        multiply = multiplier(part, name)
        for what, left, right, flops in (
            ("forward", x, weight.transpose(-2, -1), wide),
            ("rows' gradient", dy, weight, wide),
            ("weights' gradient", dy.t(), x, wide),
            ("narrow rows by B", narrow, b.transpose(-2, -1), thin),
            ("gradient by B", dy, b, thin),
            ("B's gradient", dy.t(), narrow, thin),
        ):
            work = partial(multiply, left, right, routes.ends)
            part.attempt(f"{name}: {what}", partial(rate, part, f"{name}: {what}", work, flops=flops))


def passes(part: Part) -> None:
    """What only moves bytes."""
    from olmoe_ft.model.kernels.norm import rms_norm, rms_norm_backward
    from olmoe_ft.model.kernels.rotate import rotate
    from olmoe_ft.model.kernels.swiglu import swiglu, swiglu_backward

    s, (routes, weights, tokens) = shapes(part), _routes(part)
    rows, row = routes.token.numel(), BF16 * s.hidden
    x, dy, weight = drawn(part, tokens, s.hidden), drawn(part, tokens, s.hidden), drawn(part, s.hidden)
    by_row, gate_up = drawn(part, rows, s.hidden), drawn(part, rows, 2 * s.inner)
    coming, by = drawn(part, rows, s.inner), weights.flatten()
    rate(part, "gather", lambda: x.index_select(0, routes.token), moved=row * (rows + tokens))
    rate(part, "combine", lambda: combine(by_row, routes, weights), moved=row * (rows + tokens))
    rate(part, "swiglu", lambda: swiglu(gate_up), moved=3 * BF16 * rows * s.inner)
    rate(part, "swiglu: back", lambda: swiglu_backward(gate_up, coming, by), moved=6 * BF16 * rows * s.inner)
    _, scale = rms_norm(x, weight, 1e-5)
    rate(part, "rms_norm", lambda: rms_norm(x, weight, 1e-5), moved=2 * row * tokens)
    rate(part, "rms_norm: back", lambda: rms_norm_backward(dy, x, weight, scale), moved=3 * row * tokens)
    heads = x.view(tokens, s.heads, -1)
    table = drawn(part, tokens, s.hidden // s.heads)
    rate(part, "rotate", lambda: rotate(heads, table, table), moved=2 * row * tokens)


def attention(part: Part) -> None:
    """Documents of 512 tokens; half of the scores are seen."""
    s, (_, _, tokens) = shapes(part), _routes(part)
    length = 16 if part.dry else 512
    documents = list(torch.arange(tokens).split(length))
    q, k, v = (drawn(part, 1, tokens, s.heads, s.hidden // s.heads).transpose(1, 2).requires_grad_() for _ in range(3))
    dy = drawn(part, 1, tokens, s.heads, s.hidden // s.heads)
    scores = 2.0 * s.hidden * tokens * length  # of 4 H for a pair of tokens
    prepared = attend(part, documents, documents)
    rate(part, "attention", lambda: prepared(q, k, v), flops=scores)

    def both() -> None:
        torch.autograd.grad(prepared(q, k, v), [q, k, v], dy)

    rate(part, "attention: forward and back", both, flops=3.5 * scores)
