"""What a sweep has come to: the points sorted by a metric, as a table in the terminal and as a page."""

import math
from collections.abc import Sequence
from pathlib import Path

from rich.markup import escape
from rich.table import Table

from olmoe_ft.data.terminal import Console, say
from olmoe_ft.recipe import UserError
from olmoe_ft.recipe.wording import nearest
from olmoe_ft.report.run_files import RunFiles, read_run
from olmoe_ft.sweep.points import Point
from olmoe_ft.sweep.state import Entry

LOSS = "loss/task"
SCORES = "eval/"
SHOWN = (LOSS, "router/max_violation")  # beside the metric that the points are sorted by

Row = tuple[Entry, RunFiles | None]


def show(points: Sequence[Point], entries: Sequence[Entry], by: str | None, folder: Path) -> None:
    """Print the table, and write the page of all points that have records.

    Args:
        by: the metric to sort by; None takes `default_metric`.
    Raises:
        UserError: no run has the metric.
    """
    rows: list[Row] = [(entry, _files(point.last_run)) for point, entry in zip(points, entries, strict=True)]
    runs = [run for _, run in rows if run is not None]
    by = by if by is not None else default_metric([run for entry, run in rows if entry.state == "finished" and run])
    check_metric(by, runs)
    rows.sort(key=lambda row: _rank(row, by))
    _print(rows, by)
    if len(runs) > 1:
        _write_page([run for _, run in rows if run is not None], by, folder / "compare.html")


def default_metric(runs: Sequence[RunFiles]) -> str:
    """The loss of the evaluation rows if all runs have it, else the first task's score, else the task's loss."""
    if not runs:
        return LOSS
    shared = [name for name in runs[0].metrics.of if all(name in run.metrics for run in runs)]
    scores = [name for name in shared if name.startswith(SCORES) and not name.endswith("_stderr")]
    return "eval_loss" if "eval_loss" in shared else next(iter(scores), LOSS)


def check_metric(by: str, runs: Sequence[RunFiles]) -> None:
    """Refuse a metric that no run has.

    Raises:
        UserError: naming those that there are.
    """
    known = sorted({name for run in runs for name in run.metrics.of if "/layer_" not in name})
    if known and by not in known:
        raise UserError(f"--by: found {by}{nearest(by, known)}; allowed: {', '.join(known)}")


def more_is_better(metric: str) -> bool:
    """Scores and accuracies are better if higher; losses, and all else that is measured, if lower."""
    return (metric.startswith(SCORES) and "loss" not in metric and "perplexity" not in metric) or any(
        word in metric for word in ("accurac", "margins", "tokens_per_second", "mfu")
    )


def _files(path: Path) -> RunFiles | None:
    try:
        return read_run(path)
    except UserError:
        return None  # it has not begun


def _rank(row: Row, by: str) -> tuple[bool, bool, float]:
    entry, run = row
    value = None if run is None else run.metrics.last(by)
    if value is None or not math.isfinite(value):
        return entry.state != "finished", True, 0.0
    return entry.state != "finished", False, -value if more_is_better(by) else value


def _print(rows: Sequence[Row], by: str) -> None:
    columns = dict.fromkeys((by, *SHOWN))
    table = Table(title=f"{len(rows)} point(s) by {escape(by)}, the best first")
    table.add_column("point", overflow="fold")
    table.add_column("state")
    table.add_column("steps", justify="right")
    for name in columns:
        table.add_column(escape(name.replace("/", "/\n", 1)), justify="right")
    for entry, run in rows:
        values = [None if run is None else run.metrics.last(name) for name in columns]
        steps = "" if run is None else f"{run.metrics.last_step:,}"
        table.add_row(escape(entry.name), entry.state, steps, *("" if one is None else f"{one:.4g}" for one in values))
    console = Console()
    console.print(table)
    for entry, _ in rows:
        if entry.reason and entry.state != "finished":
            console.print(f"{escape(entry.name)} {entry.state}: {escape(entry.reason)}", highlight=False)


def _write_page(runs: Sequence[RunFiles], by: str, file: Path) -> None:
    from olmoe_ft.report.comparison import comparison
    from olmoe_ft.report.page import write_page

    write_page(comparison(runs, by), file)
    say(f"the page is {file}")
