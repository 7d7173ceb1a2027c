"""Scores of evaluations over steps, as points with their standard errors."""

from collections.abc import Mapping, Sequence

import numpy as np

from olmoe_ft.evaluation.table import NOT_SHARES
from olmoe_ft.report.files.metrics import Values
from olmoe_ft.report.page.blocks import Block, Curves
from olmoe_ft.report.sections.thin import thinned

SCORE, ERROR = "eval/", "_stderr"
LINES = 8  # in one chart: as many as people can tell apart
NOTE = "Bars are standard errors."


def score_charts(of: Mapping[str, Values]) -> tuple[list[Curves], list[Block]]:
    """Charts of the scores in the records: of the first metric of every task, and of a task's other metrics.

    Args:
        of: the metrics by name: `eval/<task>/<metric>`, and their standard errors with `_stderr` behind it.
    """
    names = [name for name in of if name.startswith(SCORE) and not _is_error(name, of)]
    first = {task: name for name in reversed(names) for task in [_task(name)]}  # of several the first remains
    chosen = [name for name in names if first[_task(name)] == name]
    shares = [name for name in chosen if is_share(name, of[name])]
    parts = [shares[start : start + LINES] for start in range(0, len(shares), LINES)]
    part_of = [""] if len(parts) == 1 else [f" ({number} of {len(parts)})" for number in range(1, len(parts) + 1)]
    charts = [_chart(f"Evaluation scores{which}", part, of) for part, which in zip(parts, part_of, strict=True)]
    charts += [_chart(f"Evaluation of {_task(name)}", [name], of) for name in chosen if name not in shares]
    others: dict[str, list[str]] = {}
    for name in names:
        if name not in chosen:
            others.setdefault(_task(name), []).append(name)
    return charts, [_chart(f"Other metrics of {task}", found, of) for task, found in others.items()]


def is_share(name: str, found: Values) -> bool:
    """Whether a score is a share of something, so that it has one axis with others."""
    metric = [*name.split("/"), "", ""][2]
    known = found.values[np.isfinite(found.values)]
    return metric not in NOT_SHARES and bool(((known >= 0) & (known <= 1)).all())


def _chart(title: str, names: Sequence[str], of: Mapping[str, Values]) -> Curves:
    series = [thinned(name, of[name], points=True, errors=of.get(name + ERROR)) for name in names]
    return Curves(title, series, smooth=False, note=NOTE if any(one.errors for one in series) else "")


def _task(name: str) -> str:
    return name.split("/")[1]


def _is_error(name: str, of: Mapping[str, Values]) -> bool:
    return name.endswith(ERROR) and name.removesuffix(ERROR) in of
