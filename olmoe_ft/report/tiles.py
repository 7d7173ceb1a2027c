"""The figures of a run that matter most, for the top of its page."""

import math
from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from olmoe_ft.evaluation.score import Score
from olmoe_ft.evaluation.table import NOT_SHARES
from olmoe_ft.report.amounts import duration, hours
from olmoe_ft.report.files.evaluated import Time
from olmoe_ft.report.files.run_files import RunFiles
from olmoe_ft.report.files.time_spent import (
    device_hours,
    device_word,
    seconds_in_steps,
    speed,
    steps_known,
    tokens_trained,
)
from olmoe_ft.report.page.blocks import Cell
from olmoe_ft.report.page.numbers import number_cell
from olmoe_ft.report.sections.score_changes import key_of

Tile = tuple[str, Cell]


def tiles(run: RunFiles) -> list[Tile]:
    """What the run has come to: loss, score, routers, tokens, time."""
    return [*_loss(run), *_score(run), *_routers(run), *_spent(run)]


def _loss(run: RunFiles) -> Iterator[Tile]:
    name = "loss/task" if "loss/task" in run.metrics else "loss"
    if name in run.metrics:
        first, last = (float(run.metrics[name].values[place]) for place in (0, -1))
        yield "task loss" if name == "loss/task" else name, number_cell(last, ".4g", f"at first {_finite(first)}")
    if (held := run.metrics.last("eval_loss")) is not None:
        known = run.metrics["eval_loss"].values
        known = known[np.isfinite(known)]
        yield "evaluation loss", number_cell(held, ".4g", f"best {known.min():.4g}" if len(known) else "")


def _finite(value: float) -> str:
    return f"{value:.4g}" if math.isfinite(value) else "not finite"


def _score(run: RunFiles) -> Iterator[Tile]:
    """The first score that was asked for, after training or so far."""
    evaluated = run.evaluated
    times: tuple[Time, ...] = (evaluated.latest, "before")
    if (when := next((time for time in times if evaluated.asked(time)), None)) is None:
        return
    score = evaluated.asked(when)[0]
    error = f"± {_figure(score, score.stderr)}" if score.stderr and math.isfinite(score.stderr) else ""
    notes = [error, f"{score.n:,} questions", evaluated.at(when)[score.task].how]
    if when == "before":
        notes.append("before training")
    else:
        notes.append("" if when == "after" else f"at {evaluated.title(when)}")
        earlier = [one for one in evaluated.asked("before") if key_of(one) == key_of(score)]
        notes += [f"before {_figure(score, one.value)}" for one in earlier]
    shown = number_cell(score.value, ".4g", ", ".join(filter(None, notes)))
    if not shown.tone:
        shown = replace(shown, text=_figure(score, score.value))
    yield f"{score.task}, {score.metric.replace('_', ' ')}", shown


def _figure(score: Score, value: float) -> str:
    return f"{value:.4g}" if score.metric.partition("/")[0] in NOT_SHARES else f"{value:.1%}"


def _routers(run: RunFiles) -> Iterator[Tile]:
    if (violation := run.metrics.last("router/max_violation")) is not None:
        dead = run.metrics.last("router/dead_experts")
        notes = ["of the mean load"] + ([] if dead is None else [f"{number_cell(dead, ',.0f').text} dead"])
        shown = number_cell(1 + violation, ".2f", "; ".join(notes), "x")
        yield "busiest expert", replace(shown, tone="warn") if dead and not shown.tone else shown
    if (agreement := run.metrics.last("router/drift_agreement")) is not None:
        bar = agreement if math.isfinite(agreement) else None
        yield "choices as at the start", replace(number_cell(agreement, ".0%", "of the routers' top-k"), bar=bar)


def _spent(run: RunFiles) -> Iterator[Tile]:
    tokens, seconds, used = tokens_trained(run), seconds_in_steps(run), device_hours(run)
    if tokens is not None:
        rate = speed(run)
        yield "tokens trained", Cell(f"{tokens:,.0f}", "" if rate is None else f"{rate:,.0f} a second")
    if seconds is not None:
        of_devices = "" if used is None else f"{hours(used)} {device_word(run)}-hours"
        yield "time in steps", Cell(duration(seconds), ", ".join(filter(None, (steps_known(run), of_devices))))
