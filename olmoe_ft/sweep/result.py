"""What a sweep has come to: the points sorted by a metric, as a table in the terminal and as a page."""

from collections.abc import Sequence
from pathlib import Path

from rich.markup import escape
from rich.table import Table

from olmoe_ft.data.terminal import Console, say
from olmoe_ft.recipe import UserError
from olmoe_ft.recipe.wording import nearest
from olmoe_ft.report.comparison.compared import labelled
from olmoe_ft.report.comparison.compared_scores import ComparedScores
from olmoe_ft.report.comparison.comparison import comparison
from olmoe_ft.report.comparison.ranking import ranking
from olmoe_ft.report.files.run_files import RunFiles, read_run, stages_of
from olmoe_ft.report.page.render import write_page
from olmoe_ft.report.private.private import private_here
from olmoe_ft.sweep.state import Entry

LOSS = "loss/task"
SCORES = "eval/"
SHOWN = (LOSS, "router/max_violation")  # beside the metric that the points are sorted by
PAGE = "compare.html"

Row = tuple[Entry, RunFiles | None]


def show(entries: Sequence[Entry], by: str | None, folder: Path) -> None:
    """Print the table, and write the page of all points that have records: the best finished one first.

    Args:
        entries: all points of the sweep, those of earlier commands too.
        by: the metric to sort by; None takes `default_metric`.
    Raises:
        UserError: no run has the metric.
    """
    rows: list[Row] = [(entry, _files(folder / entry.name)) for entry in entries]
    by = by if by is not None else default_metric([run for entry, run in rows if run and entry.state == "finished"])
    rows = _sorted(rows, by)
    _print(rows, by)
    runs = [run for _, run in rows if run is not None]
    if len(runs) > 1:
        write_page(comparison(runs, by), folder / PAGE, private_here([run.path for run in runs]))
        say(f"the page: {folder / PAGE}")


def default_metric(runs: Sequence[RunFiles]) -> str:
    """The loss of the evaluation rows if all runs have it, else the first task's score, else the task's loss."""
    if not runs:
        return LOSS
    shared = [name for name in runs[0].metrics.of if all(name in run.metrics for run in runs)]
    scores = [name for name in shared if name.startswith(SCORES) and not name.endswith("_stderr")]
    return "eval_loss" if "eval_loss" in shared else next(iter(scores), LOSS)


def check_metric(by: str, run: RunFiles) -> None:
    """Refuse a metric that a finished run does not have, before the next one is trained.

    Raises:
        UserError: naming those that it has.
    """
    known = sorted(name for name in run.metrics.of if "/layer_" not in name and not name.endswith("_stderr"))
    if by not in known:
        raise UserError(f"--by: found {by}{nearest(by, known)}; allowed: {', '.join(known)}")


def _files(path: Path) -> RunFiles | None:
    """Of a point's run, or of the last stage of its pipeline."""
    try:
        run = read_run((stages_of(path) or [path])[-1])
    except UserError:
        return None  # it has not begun
    return run if run.metrics.records else None


def _sorted(rows: Sequence[Row], by: str) -> list[Row]:
    """The finished ones from the best, the others in the same order behind them, then those without records."""
    with_records = [row for row in rows if row[1] is not None]
    if len(with_records) > 1:
        ranked = ranking(ComparedScores(labelled([run for _, run in with_records if run is not None])), by)
        with_records = [with_records[place] for place in ranked.order]
    with_records.sort(key=lambda row: row[0].state != "finished")
    return [*with_records, *(row for row in rows if row[1] is None)]


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
