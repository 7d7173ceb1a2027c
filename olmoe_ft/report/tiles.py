"""The figures of a run that matter most, for the top of its page."""

import math
from collections.abc import Iterator

from olmoe_ft.evaluation.score import Score
from olmoe_ft.evaluation.table import NOT_SHARES
from olmoe_ft.report.amounts import duration, hours
from olmoe_ft.report.files.run_files import RunFiles
from olmoe_ft.report.files.time_spent import device_hours, device_word, seconds_in_steps, tokens_trained
from olmoe_ft.report.page.blocks import Cell, Tone

Tile = tuple[str, Cell]


def tiles(run: RunFiles) -> list[Tile]:
    """What the run has come to: loss, score, routers, tokens, time."""
    return [*_loss(run), *_score(run), *_routers(run), *_spent(run)]


def _loss(run: RunFiles) -> Iterator[Tile]:
    name = "loss/task" if "loss/task" in run.metrics else "loss"
    if name in run.metrics:
        first, last = (float(run.metrics[name].values[place]) for place in (0, -1))
        tone: Tone = "" if math.isfinite(last) else "bad"
        yield "task loss" if name == "loss/task" else name, Cell(f"{last:.4g}", f"at first {first:.4g}", tone)
    if (held := run.metrics.last("eval_loss")) is not None:
        yield "evaluation loss", Cell(f"{held:.4g}", f"best {float(run.metrics['eval_loss'].values.min()):.4g}")


def _score(run: RunFiles) -> Iterator[Tile]:
    """The first score that was asked for, after training or so far."""
    before, after = (run.evaluation(when) for when in ("before", "after"))
    if (newest := after or before) is None or not newest.headline:
        return
    score = newest.headline[0]
    notes = [] if score.stderr is None else [f"± {_figure(score, score.stderr)}"]
    if after is not None and before is not None:
        earlier = [one for one in before.headline if (one.task, one.metric) == (score.task, score.metric)]
        notes += [f"before {_figure(score, one.value)}" for one in earlier]
    if after is None:
        notes.append("before training")
    yield f"{score.task}, {score.metric.replace('_', ' ')}", Cell(_figure(score, score.value), ", ".join(notes))


def _figure(score: Score, value: float) -> str:
    return f"{value:.4g}" if score.metric.partition("/")[0] in NOT_SHARES else f"{value:.1%}"


def _routers(run: RunFiles) -> Iterator[Tile]:
    if (violation := run.metrics.last("router/max_violation")) is not None:
        dead = run.metrics.last("router/dead_experts") or 0
        tone: Tone = "bad" if dead else ""
        yield "busiest expert", Cell(f"{1 + violation:.2f}x", f"of the mean load; {dead:.0f} dead", tone)
    if (agreement := run.metrics.last("router/drift_agreement")) is not None:
        yield "choices as at the start", Cell(f"{agreement:.0%}", "of the routers' top-k", bar=agreement)


def _spent(run: RunFiles) -> Iterator[Tile]:
    tokens, seconds, used = tokens_trained(run), seconds_in_steps(run), device_hours(run)
    if tokens is not None:
        speed = f"{tokens / seconds:,.0f} a second" if seconds else ""
        yield "tokens trained", Cell(f"{tokens:,.0f}", speed)
    if seconds is not None:
        of_devices = "" if used is None else f"{hours(used)} {device_word(run)}-hours"
        yield "time in steps", Cell(duration(seconds), of_devices)
