"""The page of several runs side by side."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import datetime

import numpy as np

from olmoe_ft import __version__
from olmoe_ft.evaluation.score import Score
from olmoe_ft.evaluation.table import shown_value
from olmoe_ft.report.amounts import duration, hours
from olmoe_ft.report.comparison.compared import Compared, labelled
from olmoe_ft.report.comparison.compared_scores import ComparedScores
from olmoe_ft.report.comparison.curves_of_runs import curve_blocks, pace
from olmoe_ft.report.comparison.experts_of_runs import experts_section
from olmoe_ft.report.comparison.figures import figures_table, hours_of, runs_table, tokens_per_second
from olmoe_ft.report.comparison.measured import WHY
from olmoe_ft.report.comparison.ranking import Ranking, ranking
from olmoe_ft.report.comparison.recipe_differences import Differing, keys_by_run, other_differences, recipe_differences
from olmoe_ft.report.comparison.samples_side_by_side import samples_section
from olmoe_ft.report.comparison.scores_side_by_side import scores_section, size_of, tone_of
from olmoe_ft.report.comparison.significance import shown_p
from olmoe_ft.report.files.run_files import RunFiles
from olmoe_ft.report.files.time_spent import device_hours, seconds_in_steps, tokens_trained
from olmoe_ft.report.page.blocks import Block, Cell, Column, Finding, Page, Prose, Section, Table
from olmoe_ft.report.page.numbers import WITHOUT_WARNINGS

MOST = 10  # findings of one kind


@WITHOUT_WARNINGS
def comparison(runs: Sequence[RunFiles], by: str | None = None) -> Page:
    """What differs between runs, and what has come of it; however far each of them is.

    Args:
        runs: two to about fifty. The first one is what the others are compared with.
        by: a metric of their records, or a score (`eval/<task>/<metric>`), to sort them by; None keeps their order.
    Returns:
        the page; `summary_of` has its tables for the terminal.
    Raises:
        UserError: there are fewer than two runs, one of them twice, or no run has the metric.
    """
    compared = labelled(runs)
    scores = ComparedScores(compared)
    ranked = ranking(scores, by) if by is not None else None
    differing = recipe_differences(compared)
    summary = [runs_table(compared, differing, ranked), figures_table(scores, ranked)]
    sections = [
        Section("summary", "Summary", summary, _summary_lead(compared)),
        _differences(compared, differing),
        Section("curves", "Curves", _curves(compared)),
        scores_section(scores),
        experts_section(compared),
        samples_section(scores),
        Section("cost", "Cost", [cost_table(compared)]),
    ]
    return Page(
        title=", ".join(one.label for one in compared[:4]) + (" …" if len(compared) > 4 else ""),
        kind=f"{len(compared)} runs side by side",
        status=_status(compared),
        tiles=_tiles(scores, differing, ranked),
        findings=_findings(scores),
        sections=[section for section in sections if section is not None],
        foot=foot(),
    )


def summary_of(page: Page) -> list[Table]:
    """The tables of a comparison that say most: which runs they are, and their figures."""
    blocks = next(section.blocks for section in page.sections if section.id == "summary")
    return [block for block in blocks if isinstance(block, Table)]


def foot() -> str:
    return f"Written by olmoe-ft {__version__}, {datetime.now().astimezone():%Y-%m-%d %H:%M %Z}."


def cost_table(runs: Sequence[Compared]) -> Table:
    """Tokens, time and hours of devices."""
    spent = hours_of(runs)
    names = ("steps", "tokens", "time in steps", "tokens/s", spent.name, f"tokens a {spent.name.removesuffix('s')}")
    columns = [Column("run"), Column("status"), *(Column(name, number=True) for name in names)]
    rows: list[list[Cell | str]] = []
    for one in runs:
        tokens, seconds, used = tokens_trained(one.run), seconds_in_steps(one.run), device_hours(one.run)
        figures: list[Cell | str] = [
            f"{one.run.metrics.last_step:,}",
            "" if tokens is None else f"{tokens:,.0f}",
            "" if seconds is None else duration(seconds),
            tokens_per_second(one.run),
            "" if used is None else hours(used),
            f"{tokens / used:,.0f}" if tokens and used else "",
        ]
        rows.append([one.label, Cell(one.status.text, tone=one.status.tone), *figures])
    note = "Tokens: as TRL counts them, with prompts, and of a pair both sides. Hours: of all processes together."
    return Table("Cost", columns, rows, note)


def _summary_lead(runs: Sequence[Compared]) -> str:
    return f"What is compared with another run is compared with the first one, {runs[0].label}."


def _differences(runs: Sequence[Compared], differing: Sequence[Differing]) -> Section:
    blocks: list[Block] = []
    if differing:
        blocks.append(keys_by_run("Recipes", differing, runs, "Only keys whose values are not the same in all runs."))
    else:
        blocks.append(Prose("The recipes are the same but for their names."))
    if others := other_differences(runs):
        blocks.append(keys_by_run("Beside the recipes", others, runs, "Of the newest launch of each run."))
    else:
        blocks.append(Prose("Rows, versions and devices are the same, as far as they were recorded."))
    return Section("differences", "What differs", blocks)


def _curves(runs: Sequence[Compared]) -> list[Block]:
    note = pace(runs)
    return [*([note] if note else []), *curve_blocks(runs)]


def _status(runs: Sequence[Compared]) -> Cell:
    finished = sum(one.run.summary is not None for one in runs)
    if finished == len(runs):
        return Cell("all finished", tone="good")
    return Cell(f"{finished} of {len(runs)} finished", tone="warn")


def _tiles(scores: ComparedScores, differing: Sequence[Differing], ranked: Ranking | None) -> list[tuple[str, Cell]]:
    runs = scores.runs
    tiles = [("runs", Cell(str(len(runs)))), ("keys that differ", Cell(str(len(differing))))]
    if ranked is not None and (best := ranked.values[ranked.order[0]]) is not None:
        tiles.append((f"{ranked.first} {ranked.name}", Cell(f"{best:.5g}", runs[ranked.order[0]].label)))
    if (key := scores.main) is not None:
        known = [
            (score, one.label) for place, one in enumerate(runs) if (score := scores.score(place, key)) is not None
        ]
        tiles += [(f"{' '.join(key)}, of {len(known)} runs", _span(known))] if len(known) > 1 else []
    losses = [(found, one.label) for one in runs if (found := one.run.metrics.last("loss/task")) is not None]
    finite = [(loss, label) for loss, label in losses if np.isfinite(loss)]
    if finite:
        tiles.append(("lowest task loss", Cell(f"{min(finite)[0]:.4f}", min(finite)[1])))
    used = [found for one in runs if (found := device_hours(one.run)) is not None]
    if used:
        tiles.append((hours_of(runs).name, Cell(hours(sum(used)), "of all runs")))
    return tiles


def _span(scores: Sequence[tuple[Score, str]]) -> Cell:
    ordered = sorted(scores, key=lambda one: one[0].value)
    low, high = (shown_value(replace(one, stderr=None)) for one in (ordered[0][0], ordered[-1][0]))
    return Cell(f"{low} to {high}", f"highest: {ordered[-1][1]}")


def _findings(scores: ComparedScores) -> list[Finding]:
    """After the sections were made, since files are found damaged where they are read."""
    found = []
    for one in scores.runs:
        if one.state.how == "failed":
            why = f": {one.state.reason}" if one.state.reason else ""
            found.append(Finding("bad", f"{one.label} failed at {one.status.note}{why}", "summary"))
    for one in scores.runs:
        if one.state.how not in ("finished", "failed"):
            text = f"{one.label} has not finished: {one.state.how}, {one.status.note} so far"
            found.append(Finding("warn", text, "summary"))
    for text in dict.fromkeys([*scores.unreadable, *(text for one in scores.runs for text in one.run.unreadable)]):
        found.append(Finding("warn", text))
    return [*found, *_not_comparable(scores), *_measured_otherwise(scores), *_significant(scores)]


def _not_comparable(scores: ComparedScores) -> Iterator[Finding]:
    first = scores.runs[0].label
    for task in dict.fromkeys(task for task, _ in scores.keys):
        by_reason: dict[str, list[str]] = {}
        for place, one in enumerate(scores.runs):
            if reason := scores.apart(place, task):
                by_reason.setdefault(reason, []).append(one.label)
        for reason, labels in by_reason.items():
            yield Finding("warn", f"{task}: {', '.join(labels)} and {first} are {reason}", "scores")


def _measured_otherwise(scores: ComparedScores) -> Iterator[Finding]:
    """A difference of scores may then be none of the weights."""
    by_remark: dict[tuple[str, str], list[str]] = {}
    for task in dict.fromkeys(task for task, _ in scores.keys):
        for place, one in enumerate(scores.runs):
            if remark := scores.remark(place, task):
                by_remark.setdefault((one.label, remark), []).append(task)
    for (label, remark), tasks in by_remark.items():
        text = f"{', '.join(tasks)}: {label} was evaluated with {remark}, {WHY}"
        yield Finding("warn", text, "scores")


def _significant(scores: ComparedScores) -> list[Finding]:
    """Differences from the first run that are more than chance, the most certain first."""
    tested = sorted(scores.tests.items(), key=lambda item: item[1].difference.p)
    found = []
    for (place, key), one in tested:
        if tone := tone_of(scores, place, key):
            label, sure = scores.runs[place].label, shown_p(one.adjusted)
            text = f"{' '.join(key)}: {label} is {'better' if tone == 'good' else 'worse'} than {scores.runs[0].label}"
            found.append(Finding("good" if tone == "good" else "warn", f"{text} by {size_of(one)} ({sure})", "scores"))
    more = [Finding("", f"{len(found) - MOST:,} more differences are beyond chance", "scores")]
    return found[:MOST] + (more if len(found) > MOST else [])
