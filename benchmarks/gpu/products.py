"""Are the experts' products right? Every layout that training asks for, with empty experts and experts of one row.

Shapes: R rows sorted by expert, E experts, r rank.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from gpu.exact import FP32, ROUNDING, compare, drawn, poison, shapes
from gpu.part import Part

TORCH, OWN = "F.grouped_mm", "Triton"


class Layout(NamedTuple):
    """A product as `AllExperts` writes it (olmoe_ft/model/experts/matmul.py)."""

    name: str
    left: Tensor
    right: Tensor
    ragged: bool  # whether the sum goes over an expert's rows, as for gradients of weights


def layouts(part: Part, rows: int) -> list[Layout]:
    """Forward, both gradients, and the same for an adapter's factors B (E, out, r) and A (E, r, in)."""
    s = shapes(part)
    x, dy, narrow = drawn(part, rows, s.hidden), drawn(part, rows, 2 * s.inner), drawn(part, rows, s.rank)
    weight = drawn(part, s.experts, 2 * s.inner, s.hidden)
    b, a = drawn(part, s.experts, 2 * s.inner, s.rank), drawn(part, s.experts, s.rank, s.hidden)
    return [
        Layout("forward", x, weight.transpose(-2, -1), False),
        Layout("rows' gradient", dy, weight, False),
        Layout("weights' gradient", dy.t(), x, True),
        Layout("rows by A", x, a.transpose(-2, -1), False),
        Layout("narrow rows by B", narrow, b.transpose(-2, -1), False),
        Layout("gradient by B", dy, b, False),
        Layout("narrow gradient by A", narrow, a, False),
        Layout("B's gradient", dy.t(), narrow, True),
        Layout("A's gradient", narrow.t(), x, True),
    ]


def row_counts(part: Part) -> Tensor:
    """(E,) rows of each expert: most as many as tokens bring, the first, one within and the last none, one a single."""
    s = shapes(part)
    counts = torch.randint(1, 2 * s.tokens * s.per_token // s.experts, (s.experts,))
    counts[0] = counts[s.experts // 2] = counts[-1] = 0
    counts[1] = 1
    return counts


def exactly(layout: Layout, counts: Tensor, sizes: bool) -> Tensor:
    """In fp64, expert by expert; `sizes`: of the absolute values."""
    left, right = (layout.left.abs(), layout.right.abs()) if sizes else (layout.left, layout.right)
    ends = [0, *counts.cumsum(0).tolist()]
    parts = []
    for expert, (start, end) in enumerate(zip(ends, ends[1:], strict=False)):
        if layout.ragged:
            parts.append(left[:, start:end].double() @ right[start:end].double())
        else:
            parts.append(left[start:end].double() @ right[expert].double())
    return torch.stack(parts) if layout.ragged else torch.cat(parts)


def multiplier(part: Part, name: str) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    """torch's kernel or ours, whichever this card would choose; of left, right and where each expert's rows end."""
    if name == TORCH:
        return lambda left, right, ends: F.grouped_mm(left, right, offs=ends)
    from olmoe_ft.model.kernels.grouped import grouped_mm

    if not part.dry:
        return grouped_mm
    # products in the interpreter know no bf16
    return lambda left, right, ends: grouped_mm(left.float(), right.float(), ends).bfloat16()


def run(part: Part, name: str) -> None:
    counts = row_counts(part)
    ends = counts.cumsum(0).to(part.device, torch.int32)
    multiply = multiplier(part, name)
    for layout in layouts(part, int(counts.sum())):
        what = f"{name}: {layout.name}"
        part.attempt(what, partial(_check, part, what, multiply, layout, counts, ends))


def _check(part: Part, what: str, multiply: Any, layout: Layout, counts: Tensor, ends: Tensor) -> None:
    exact, sizes = exactly(layout, counts, sizes=False), exactly(layout, counts, sizes=True)
    terms = int(counts.max()) if layout.ragged else layout.left.shape[1]
    poison(part)
    found = multiply(layout.left, layout.right, ends)
    compare(part, what, found, exact, ROUNDING * exact.abs() + terms * FP32 * sizes)
