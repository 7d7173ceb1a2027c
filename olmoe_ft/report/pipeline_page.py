"""The page of a pipeline: its stages one after the other."""

from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path

import numpy as np

from olmoe_ft.evaluation.table import shown_value
from olmoe_ft.recipe import UserError
from olmoe_ft.report.amounts import duration, hours
from olmoe_ft.report.comparison.compared import Compared
from olmoe_ft.report.comparison.compared_scores import ComparedScores
from olmoe_ft.report.comparison.comparison import cost_table, foot
from olmoe_ft.report.comparison.curves_of_runs import curve_blocks
from olmoe_ft.report.comparison.experts_of_runs import experts_table, rounded, tokens_differ
from olmoe_ft.report.comparison.figures import LOSSES, ROUTERS, hours_of
from olmoe_ft.report.comparison.recipe_differences import keys_by_run, recipe_differences
from olmoe_ft.report.comparison.scores_side_by_side import scores_section
from olmoe_ft.report.files.atlas import AFTER, BEFORE, PROBE, atlas
from olmoe_ft.report.files.run_files import read_run, stages_of
from olmoe_ft.report.files.time_spent import device_hours, seconds_in_steps, tokens_trained
from olmoe_ft.report.findings.findings import ORDER, findings
from olmoe_ft.report.page.blocks import Block, Cell, Column, Finding, HeatMap, HeatMaps, Page, Prose, Section, Table
from olmoe_ft.report.page.numbers import WITHOUT_WARNINGS

REPORT = "report.html"  # of each stage, in its run directory


@WITHOUT_WARNINGS
def pipeline_page(path: Path, linked: bool = True) -> Page:
    """The stages of a pipeline that have begun, in order.

    Args:
        path: the folder that holds their run directories.
        linked: whether the page is written into that folder, from where it leads to the stages' own pages.
    Raises:
        UserError: it holds none.
    """
    if not (folders := stages_of(path)):
        raise UserError(f"{path}: found no stage of a pipeline; allowed: a folder that holds run directories")
    stages = [Compared(folder.name, read_run(folder)) for folder in folders]
    sections = [
        Section(
            "stages", "Stages", [_stages_table(stages, linked)], "Each stage starts from the weights of the one before."
        ),
        Section(
            "curves",
            "Curves",
            _curves(stages),
            "The stages one after the other, a colour for each. What one stage alone records is on its own page.",
        ),
        scores_section(ComparedScores(stages)) if len(stages) > 1 else None,
        _experts(stages),
        _recipes(stages),
        Section("cost", "Cost", [cost_table(stages)]),
    ]
    return Page(
        title=path.resolve().name,
        kind=f"pipeline: {', then '.join(one.run.stage or one.label for one in stages)}",
        status=_status(stages),
        tiles=_tiles(stages),
        findings=_findings(stages),
        sections=[section for section in sections if section is not None],
        foot=foot(),
    )


def _stages_table(stages: Sequence[Compared], linked: bool) -> Table:
    """A line for each stage, whose name leads to its own page."""
    spent = hours_of(stages)
    figures = [*LOSSES, *ROUTERS, spent]
    names = ("steps", "time in steps", *(one.name for one in figures))
    columns = [Column("stage"), Column("status"), *(Column(name, number=True) for name in names)]
    rows: list[list[Cell | str]] = []
    for one in stages:
        seconds = seconds_in_steps(one.run)
        time = "" if seconds is None else duration(seconds)
        link = f"{one.label}/{REPORT}" if linked and (one.run.path / REPORT).exists() else ""
        label = Cell(one.label, link=link)
        rows.append(
            [label, one.status, f"{one.run.metrics.last_step:,}", time, *(each.of(one.run) for each in figures)]
        )
    leads = " A stage's name leads to its own page." if linked else ""
    return Table("", columns, rows, f"Losses and routers: the newest record.{leads}")


def _curves(stages: Sequence[Compared]) -> list[Block]:
    steps = [one.run.metrics.last_step for one in stages]
    begins = [0, *accumulate(steps)][:-1]
    places = [f"{one.label} from step {begin:,}" for one, begin in zip(stages, begins, strict=True)]
    text = f"Steps are counted from the start of the pipeline: {', '.join(places)}."
    return [Prose(text), *curve_blocks(stages, begins)]


def _experts(stages: Sequence[Compared]) -> Section | None:
    """The load before the first stage and after each one, on each stage's own probe."""
    known = [(one.label, found) for one in stages if (found := atlas(one.run)) is not None]
    if not known:
        return None
    alike = [(label, found) for label, found in known if found.shape == known[0][1].shape]
    loads: dict[str, np.ndarray] = {}
    changes: dict[str, np.ndarray] = {}
    for label, found in alike:
        before, after = (found.load(PROBE, when) for when in (BEFORE, AFTER))
        if not loads and before is not None:
            loads[f"before {label}"] = before
        if before is not None and after is not None:
            loads[f"after {label}"], changes[f"what {label} changed"] = after, after - before
    maps = [HeatMap(PROBE, name, rounded(load)) for name, load in loads.items()]
    maps += [HeatMap(PROBE, name, rounded(change), difference=True) for name, change in changes.items()]
    blocks: list[Block] = [HeatMaps("Load of each expert", maps), experts_table(loads)]
    if tokens_differ(found for _, found in alike):
        blocks.append(
            Prose("Each stage's probe is of its own rows; what a stage changed is measured on the same rows before.")
        )
    return Section("experts", "Experts", blocks, "Which experts the probe's tokens choose, from stage to stage.")


def _recipes(stages: Sequence[Compared]) -> Section | None:
    if not (differing := recipe_differences(stages)) or len(stages) < 2:
        return None
    table = keys_by_run("Recipes", differing, stages, "Only keys whose values are not the same in all stages.")
    return Section("differences", "What differs between the stages", [table])


def _status(stages: Sequence[Compared]) -> Cell:
    """That of the newest stage. Whether more of them are to come is in no file of theirs."""
    newest = stages[-1]
    return Cell(newest.status.text, f"{newest.label}, {newest.status.note}", newest.status.tone)


def _tiles(stages: Sequence[Compared]) -> list[tuple[str, Cell]]:
    tiles = [
        ("stages", Cell(str(len(stages)), ", ".join(one.label for one in stages))),
        ("steps", Cell(f"{sum(one.run.metrics.last_step for one in stages):,}")),
    ]
    if tokens := sum(tokens_trained(one.run) or 0 for one in stages):
        tiles.append(("tokens", Cell(f"{tokens:,.0f}")))
    if used := [found for one in stages if (found := device_hours(one.run)) is not None]:
        tiles.append((hours_of(stages).name, Cell(hours(sum(used)))))
    scores = ComparedScores([stages[-1]])
    if (key := scores.main) is not None and (score := scores.score(0, key)) is not None:
        value, _, error = shown_value(score).partition(" ± ")
        tiles.append((" ".join(key), Cell(value, f"± {error}, {stages[-1].label}" if error else stages[-1].label)))
    return tiles


def _findings(stages: Sequence[Compared]) -> list[Finding]:
    """Those of every stage, each with the stage's name; what they show more of is on the stage's own page."""
    found = [Finding(one.tone, f"{stage.label}: {one.text}") for stage in stages for one in findings(stage.run)]
    return sorted(found, key=lambda finding: ORDER.index(finding.tone))
