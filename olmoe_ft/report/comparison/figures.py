"""The figures of several runs as one table, which the page and the terminal show alike."""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from olmoe_ft.report.amounts import hours
from olmoe_ft.report.comparison.compared import Compared
from olmoe_ft.report.comparison.compared_scores import ComparedScores
from olmoe_ft.report.comparison.measured import WHY
from olmoe_ft.report.comparison.ranking import Ranking
from olmoe_ft.report.comparison.recipe_differences import Differing, in_one_line
from olmoe_ft.report.comparison.scores_side_by_side import p_cell, remarks, value_cell
from olmoe_ft.report.files.run_files import RunFiles
from olmoe_ft.report.files.time_spent import device_hours, device_word
from olmoe_ft.report.page.blocks import Cell, Column, Table
from olmoe_ft.report.page.numbers import number_cell


class Figure(NamedTuple):
    """A column: its heading, and a run's value."""

    name: str
    of: Callable[[RunFiles], Cell]
    metric: str = ""
    """The metric whose newest value it is."""


def newest(name: str, metric: str, form: str) -> Figure:
    """The newest value of a metric."""
    return Figure(name, lambda run: number_cell(run.metrics.last(metric), form), metric)


def lowest_evaluation_loss(run: RunFiles) -> Cell:
    if "eval_loss" not in run.metrics:
        return Cell("")
    steps, values = run.metrics["eval_loss"]
    if not np.isfinite(values).any():
        return Cell("not finite", tone="bad")
    best = int(np.nanargmin(np.where(np.isfinite(values), values, np.nan)))
    return number_cell(float(values[best]), ".4f", f"step {steps[best]:,}")


def tokens_per_second(run: RunFiles) -> Cell:
    """The median of the run's later half: the start of a run warms up."""
    if "perf/tokens_per_second" not in run.metrics:
        return Cell("")
    values = run.metrics["perf/tokens_per_second"].values
    return number_cell(float(np.median(values[len(values) // 2 :])), ",.0f")


def _hours(run: RunFiles) -> Cell:
    spent = device_hours(run)
    return Cell("" if spent is None else hours(spent))


LOSSES = (
    newest("loss", "loss", ".4f"),
    newest("task loss", "loss/task", ".4f"),
    Figure("best eval loss", lowest_evaluation_loss),
)
ROUTERS = (
    newest("max violation", "router/max_violation", ".2f"),
    newest("dead experts", "router/dead_experts", ".0f"),
    newest("drift agreement", "router/drift_agreement", ".1%"),
)


def hours_of(runs: Sequence[Compared]) -> Figure:
    """GPU-hours, or hours of processes on CPUs."""
    words = {device_word(one.run) for one in runs}
    return Figure(f"{words.pop() if len(words) == 1 else 'device'}-hours", _hours)


def runs_table(runs: Sequence[Compared], differing: Sequence[Differing], ranked: Ranking | None) -> Table:
    """How far each run is, and what differs between the recipes; in the order of a ranking."""
    rows: list[list[Cell | str]] = [
        [runs[place].label, runs[place].status, in_one_line(differing, place)] for place in _order(runs, ranked)
    ]
    return Table("Runs", [Column("run"), Column("status"), Column("what differs")], rows)


def figures_table(scores: ComparedScores, ranked: Ranking | None) -> Table:
    """A line for each run, in the order of a ranking; columns that are empty in all are left out."""
    runs = scores.runs
    columns: list[tuple[Column, list[Cell]]] = []
    if ranked is not None:
        columns.append((Column(ranked.name, True), [number_cell(value, ".5g") for value in ranked.values]))
    figures = [*ROUTERS, Figure("tokens/s", tokens_per_second), hours_of(runs)]
    columns += [_column(one, runs) for one in LOSSES if ranked is None or one.metric != ranked.name]
    columns += _main_score(scores)
    columns += [_column(one, runs) for one in figures if ranked is None or one.metric != ranked.name]
    shown = [(column, cells) for column, cells in columns if any(cell.text for cell in cells)]
    rows: list[list[Cell | str]] = [
        [runs[place].label, *(cells[place] for _, cells in shown)] for place in _order(runs, ranked)
    ]
    return Table("Figures", [Column("run"), *(column for column, _ in shown)], rows, _note(scores, ranked))


def _order(runs: Sequence[Compared], ranked: Ranking | None) -> Sequence[int]:
    return ranked.order if ranked is not None else range(len(runs))


def _main_score(scores: ComparedScores) -> Iterator[tuple[Column, list[Cell]]]:
    if (key := scores.main) is None:
        return
    places = range(len(scores.runs))
    yield Column(" ".join(key), number=True), [value_cell(scores, place, key, alone=True) for place in places]
    if len(places) > 1:
        yield Column(f"p against {scores.runs[0].label}", number=True), [p_cell(scores, place, key) for place in places]


def _column(figure: Figure, runs: Sequence[Compared]) -> tuple[Column, list[Cell]]:
    return Column(figure.name, number=True), [figure.of(one.run) for one in runs]


def _note(scores: ComparedScores, ranked: Ranking | None) -> str:
    notes = ["Losses and routers: the newest record. tokens/s: the median of the later half of the records."]
    if scores.tests:
        methods = ", ".join(dict.fromkeys(tested.difference.method for tested in scores.tests.values()))
        adjusted = f"; adjusted for all {len(scores.tests)} comparisons of scores" if len(scores.tests) > 1 else ""
        notes.append(f"p: by question, on the same ones, {methods}{adjusted}.")
    if scores.main is not None:
        notes += [f"{label}: {remark}, {WHY}." for label, remark in remarks(scores)]
    if ranked is not None:
        unknown = "; it is not known whether more of it is better" if ranked.higher_is_better is None else ""
        notes.append(f"Sorted by {ranked.name}, the {'lowest' if ranked.lower else 'highest'} first{unknown}.")
    return " ".join(notes)
