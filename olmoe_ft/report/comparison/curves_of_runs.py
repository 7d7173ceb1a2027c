"""Curves of several runs: over each other, or of a pipeline's stages one after the other. One chart for each metric."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from olmoe_ft.report.comparison.compared import Compared
from olmoe_ft.report.comparison.compared_scores import asked
from olmoe_ft.report.files.metrics import Values
from olmoe_ft.report.page.blocks import Block, Curves, Fold, Prose
from olmoe_ft.report.sections.charts_known import LEARNING, ROUTERS, SPEED, Chart
from olmoe_ft.report.sections.curves import LAYER, OF_ROWS, unknown
from olmoe_ft.report.sections.thin import thinned

POINTS = 60_000  # of all curves together, so that a page of fifty runs is no larger than one of two
MOST, LEAST = 1_000, 40  # of one curve
OTHER_PACE = 1.05  # tokens a step of one run over those of another that are worth a note
DRIFT = "router/drift_agreement"


class OneMetric(NamedTuple):
    """What is known of a metric."""

    metric: str
    chart: Chart
    """In which a run's own page shows it, maybe with others."""

    @property
    def title(self) -> str:
        name = self.metric.removeprefix(OF_ROWS)
        title = self.chart.title if name == self.chart.names[0] else f"{self.chart.title}: {name}"
        return f"{title}, of the evaluation rows" if self.metric.startswith(OF_ROWS) else title


def curve_blocks(runs: Sequence[Compared], begins: Sequence[int] | None = None) -> list[Block]:
    """A chart for each metric of two runs or more; those that people rarely compare are in a fold.

    Args:
        begins: the step at which each run begins in the charts; None: all at 0.
    """
    counts = Counter(name for one in runs for name in one.run.metrics.of if not LAYER.fullmatch(name))
    shared = [name for name, found in counts.items() if found >= min(2, len(runs))]
    first = [one for one in _known() if one.metric in shared]
    others = [OneMetric(name, chart) for chart in unknown(shared) for name in _with_rows(chart) if name in shared]
    scores = sorted({name for one in runs for name in _score_names(one)})
    most = POINTS // (len(runs) * max(1, len(first) + len(others) + len(scores)))
    axis = Axis(runs, begins or [0] * len(runs), min(MOST, max(LEAST, most)))
    blocks: list[Block] = [axis.metric(one) for one in first]
    blocks += [axis.score(name) for name in scores]
    more = [axis.metric(one) for one in others]
    return [*blocks, Fold("Other metrics", more)] if more else blocks


def pace(runs: Sequence[Compared]) -> Prose | None:
    """Where the runs do not see as many tokens a step: then a step of one is not a step of another."""
    tokens = {}
    for one in runs:
        if (last := one.run.metrics.last("num_tokens")) and one.run.metrics.last_step:
            tokens[one.label] = last / one.run.metrics.last_step
    if not tokens or max(tokens.values()) <= OTHER_PACE * min(tokens.values()):
        return None
    each = ", ".join(f"{label} {count:,.0f}" for label, count in tokens.items())
    return Prose(f"The runs do not see as many tokens a step, so equal steps are not equal work: {each}.")


class Axis(NamedTuple):
    """The steps that all charts have in common."""

    runs: Sequence[Compared]
    begins: Sequence[int]
    """The step at which each run begins."""
    most: int
    """Points of one curve."""

    def metric(self, one: OneMetric) -> Curves:
        series = []
        for run, begin in zip(self.runs, self.begins, strict=True):
            if one.metric in run.run.metrics:
                values = run.run.metrics[one.metric]
                if one.metric == DRIFT:  # nothing has moved before the first step
                    values = Values(np.concatenate([[0], values.steps]), np.concatenate([[1.0], values.values]))
                moved = Values(values.steps + begin, values.values)
                points = len(values.steps) == 1
                series.append(replace(thinned(run.label, moved, points=points, most=self.most), group=run.label))
        smooth = one.chart.smooth and not one.metric.startswith(OF_ROWS)
        note = f"{one.metric}. {one.chart.note}" if one.chart.note else one.metric
        return Curves(one.title, series, one.chart.unit, smooth=smooth, note=note)

    def score(self, name: str) -> Curves:
        """A score over steps; of evaluations that asked something else only those that most are like."""
        found = [
            (place, evaluation.step + self.begins[place], score, asked(evaluation, score))
            for place, one in enumerate(self.runs)
            for evaluation in one.run.evaluations
            if evaluation.step is not None
            for score in evaluation.headline
            if score.name == name
        ]
        [(usual, _)] = Counter(like for *_, like in found).most_common(1)
        series = []
        for place, one in enumerate(self.runs):
            scores = {step: score for at, step, score, like in found if at == place and like == usual}
            if scores:
                steps = np.array(sorted(scores))
                values = Values(steps, np.array([scores[step].value for step in steps]))
                errors = Values(steps, np.array([scores[step].stderr or 0.0 for step in steps]))
                line = thinned(one.label, values, points=True, errors=errors, most=self.most)
                series.append(replace(line, group=one.label))
        return Curves(name, series, smooth=False, note="Bars are standard errors.")


def _known() -> Iterator[OneMetric]:
    for chart in (*LEARNING, *ROUTERS, *SPEED):
        yield from (OneMetric(name, chart) for name in _with_rows(chart))


def _with_rows(chart: Chart) -> Iterator[str]:
    """The metrics of a chart, each also of the evaluation rows."""
    for name in chart.names:
        yield from (name, OF_ROWS + name)


def _score_names(one: Compared) -> set[str]:
    """The scores that a run has at two steps or more."""
    steps: dict[str, set[int]] = {}
    for evaluation in one.run.evaluations:
        if evaluation.step is not None:
            for score in evaluation.headline:
                steps.setdefault(score.name, set()).add(evaluation.step)
    return {name for name, found in steps.items() if len(found) > 1}
