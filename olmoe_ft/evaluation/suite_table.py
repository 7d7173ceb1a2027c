"""Evaluations of the suite `olmoe` side by side, and beside the paper's values; all in per cent."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt
from typing import Literal

from rich import box
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from olmoe_ft.evaluation.paper import COMPARED, Published
from olmoe_ft.evaluation.score import Evaluation
from olmoe_ft.evaluation.suite import SUITE, Column

Verdict = Literal["lower", "within", "higher", "unknown"]
ERRORS = 2  # standard errors within which a value is no different


@dataclass(frozen=True)
class Measured:
    """A value of one model, in per cent."""

    value: float
    stderr: float | None
    n: int
    """Questions."""

    def against(self, published: float) -> Verdict:
        """Whether it is lower or higher than a published value by more than two of its own standard errors."""
        if self.stderr is None:
            return "unknown"
        difference = round(self.value - published, 9)  # a difference of exactly two is within
        if abs(difference) <= round(ERRORS * self.stderr, 9):
            return "within"
        return "lower" if difference < 0 else "higher"


@dataclass(frozen=True)
class SuiteRow:
    """A column of the suite: what each evaluation has of it."""

    column: Column
    measured: list[Measured | None]
    """One for each evaluation; None where it does not have the column."""
    templates: list[str | None]
    """The chat template of each, as `Score.template` names it."""


def suite_rows(evaluations: Sequence[Evaluation]) -> list[SuiteRow]:
    """All columns of the suite, in the paper's order."""
    rows = []
    for column in SUITE:
        found = [
            next((score for score in one.scores if (score.task, score.metric) == (column.task, column.metric)), None)
            for one in evaluations
        ]
        measured = [
            None
            if score is None
            else Measured(100 * score.value, None if score.stderr is None else 100 * score.stderr, score.n)
            for score in found
        ]
        rows.append(SuiteRow(column, measured, [None if score is None else score.template for score in found]))
    return rows


def shared(rows: Sequence[SuiteRow]) -> list[SuiteRow]:
    """The columns that every evaluation has: averages are over these, so that they can be compared."""
    return [row for row in rows if all(row.measured)]


def average(rows: Sequence[SuiteRow], index: int) -> Measured:
    """The mean of one evaluation over columns that it has; its error as of independent columns.

    Args:
        rows: at least one.
        index: of the evaluation.
    """
    ones = [one for row in rows if (one := row.measured[index]) is not None]
    assert len(ones) == len(rows)
    errors = [one.stderr for one in ones]
    known = [error for error in errors if error is not None]
    stderr = sqrt(sum(error**2 for error in known)) / len(ones) if len(known) == len(errors) else None
    return Measured(sum(one.value for one in ones) / len(ones), stderr, sum(one.n for one in ones))


def published_average(rows: Sequence[SuiteRow], published: Published) -> float:
    """The mean of a published model over the same columns."""
    return sum(published.values[row.column.name] for row in rows) / len(rows)


def suite_table(evaluations: Sequence[Evaluation]) -> Table:
    """One row a column of the paper, one column a model with its differences from the paper's, which come last."""
    rows = suite_rows(evaluations)
    table = Table(
        title="Suite olmoe, in per cent; SFT, DPO and KTO as in the paper",
        box=box.SIMPLE,
        padding=(0, 1, 0, 0),
        caption_justify="left",
        caption_style="",
    )
    table.add_column("", overflow="fold")
    table.add_column("n", justify="right", overflow="fold")
    names = ", ".join(one.name for one in COMPARED)
    for evaluation in evaluations:
        table.add_column(escape(evaluation.model), justify="right", overflow="fold")
        table.add_column(f"minus {names}", justify="right")
    for published in COMPARED:
        table.add_column(published.name, justify="right")
    for row in rows:
        values = [one.values[row.column.name] for one in COMPARED]
        table.add_row(row.column.title, *_cells(row.measured, values))
    if complete := shared(rows):
        table.add_section()
        means = [average(complete, index) for index in range(len(evaluations))]
        cells = _cells(means, [published_average(complete, one) for one in COMPARED])
        table.add_row(f"average of {len(complete)} of {len(rows)}", *cells)
    table.caption = Text("\n".join(_notes(rows)))
    return table


def _cells(measured: Sequence[Measured | None], published: Sequence[float]) -> list[str]:
    counts = dict.fromkeys(f"{one.n:,}" for one in measured if one is not None)
    cells = [" / ".join(counts) or "-"]
    for one in measured:
        cells += ["-", ""] if one is None else [_with_error(one), " ".join(_differences(one, published))]
    return cells + [f"{value:.1f}" for value in published]


def _with_error(one: Measured) -> str:
    return f"{one.value:.1f}" + ("" if one.stderr is None else f" ± {one.stderr:.1f}")


def _differences(one: Measured, published: Sequence[float]) -> list[str]:
    """Each with a star if it is outside two standard errors, and a question mark where there is no standard error."""
    marks = {"lower": "*", "higher": "*", "within": "", "unknown": "?"}
    return [f"{one.value - value:+.1f}{marks[one.against(value)]}" for value in published]


def _notes(rows: Sequence[SuiteRow]) -> list[str]:
    notes = [
        f"* outside {ERRORS} standard errors of the value here; the paper gives none for its own values, which have "
        "theirs too: GSM8k is of 200 questions, about 3.5 points",
    ]
    for row in rows:
        if not all(row.measured):
            notes.append(f"{row.column.title}: {row.column.why_missing()}")
        if any(row.measured) and not row.column.departure.startswith("none"):
            notes.append(f"{row.column.title}: {row.column.departure}")
    for row in (row for row in rows if row.column.chat):
        if len({template for one, template in zip(row.measured, row.templates, strict=True) if one is not None}) > 1:
            notes.append("the models have different chat templates, which can move scores more than training does")
            break
    return notes
