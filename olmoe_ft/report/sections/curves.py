"""Curves over steps: every metric of the records that is one number is in one chart, or among the totals.

Which metrics belong together is in `charts_known`; of others, those with one prefix share a chart. The drift of each
layer is with the experts, and so is what is measured of every layer.
"""

import re
from collections.abc import Iterable, Mapping

from olmoe_ft.report.files.metrics import Values
from olmoe_ft.report.files.run_files import RunFiles
from olmoe_ft.report.page.blocks import Block, Curves, Facts, Fold, Section, Series
from olmoe_ft.report.sections.charts_known import LEARNING, RARE, ROUTERS, SPEED, TOTALS, Chart
from olmoe_ft.report.sections.planned import Planned
from olmoe_ft.report.sections.score_charts import score_charts
from olmoe_ft.report.sections.thin import POINTS, thinned

OF_ROWS = "eval_"  # before the name of a metric, where it is one of the evaluation rows
LAYER = re.compile(r"router/\w+/layer_\d+")


def curves(run: RunFiles) -> Section | None:
    """All metrics of the records; None of a run without records."""
    of = {name: found for name, found in run.metrics.of.items() if not LAYER.fullmatch(name)}
    if not of:
        return None
    planned = Planned(run).lines
    known = {chart: _curves(chart, of, planned) for chart in (*LEARNING, *ROUTERS, *SPEED, *RARE)}
    often = [found for chart in (*LEARNING, *ROUTERS, *SPEED) if (found := known[chart]) is not None]
    rare: list[Block] = [found for chart in RARE if (found := known[chart]) is not None]
    rare += [found for chart in unknown(of) if (found := _curves(chart, of, planned)) is not None]
    if totals := [(name, f"{value:,.6g}") for name in TOTALS if (value := run.metrics.last(name)) is not None]:
        rare.append(Facts("Totals at the end", totals))
    scores, details = score_charts(of)
    blocks: list[Block] = [*often[:1], *scores, *often[1:]]
    if details:
        blocks.append(Fold("Evaluation scores by task", details))
    if rare:
        blocks.append(Fold("Rarely needed", rare))
    return Section("curves", "Curves", blocks, _lead(run))


def unknown(names: Iterable[str]) -> list[Chart]:
    """Charts of the metrics that are not known by name: one for each prefix, or for each metric without one."""
    known = {name for chart in (*LEARNING, *ROUTERS, *SPEED, *RARE) for name in chart.names}
    groups: dict[str, list[str]] = {}
    for name in names:
        base = name.removeprefix(OF_ROWS)
        if not (base in known or name in TOTALS or name.startswith("eval/")):
            groups.setdefault(base.rpartition("/")[0] or base, []).append(base)
    return [Chart(title, tuple(dict.fromkeys(found))) for title, found in groups.items()]


def _curves(chart: Chart, of: Mapping[str, Values], planned: Mapping[str, float]) -> Curves | None:
    series = [series_of(name, of[name]) for name in chart.names if name in of]
    rows = [OF_ROWS + name for name in chart.names if OF_ROWS + name in of]
    series += [thinned(name, of[name], points=True) for name in rows]
    if not series:
        return None
    series += [line for name in chart.names if name in planned and (line := _level(planned[name], series))]
    measured = any(not one.points for one in series)
    return Curves(chart.title, series, chart.unit, smooth=chart.smooth and measured, note=chart.note)


def series_of(name: str, found: Values) -> Series:
    """A metric as a line, or as a point where there is one value alone."""
    return thinned(name, found, points=len(found.steps) == 1)


def _level(value: float, series: list[Series]) -> Series | None:
    """What was planned, from the first step of a chart to its last."""
    first, last = min(one.x[0] for one in series), max(one.x[-1] for one in series)
    return Series("planned", [first, last], [value, value], dashed=True) if first < last else None


def _lead(run: RunFiles) -> str:
    records, step = run.metrics.records, run.metrics.last_step
    said = f"{records:,} record{'' if records == 1 else 's'} up to step {step:,}. Points are evaluations."
    if any(len(found.steps) > POINTS for found in run.metrics.of.values()):
        said += " Long series are thinned; the lowest and the highest value of every stretch are kept."
    return said
