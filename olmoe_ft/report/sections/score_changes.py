"""How scores have changed from before to after training, and whether that may be chance."""

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any

from olmoe_ft.evaluation.direction import higher_is_better
from olmoe_ft.evaluation.paired import pairs
from olmoe_ft.evaluation.score import Score
from olmoe_ft.evaluation.table import is_share
from olmoe_ft.report.comparison.fisher import FISHER, fisher_p_value
from olmoe_ft.report.comparison.measured import measured_otherwise
from olmoe_ft.report.comparison.significance import FEWEST, LEVEL, holm, paired_difference
from olmoe_ft.report.files.evaluated import Time
from olmoe_ft.report.files.run_files import RunFiles

UNPAIRED = "unpaired"
ROUNDING = 1e-6  # of a share, in a file

Key = tuple[str, str]  # task and metric


def key_of(score: Score) -> Key:
    return score.task, score.metric


@dataclass(frozen=True)
class Change:
    """One metric of one task, before and after."""

    before: Score
    after: Score
    difference: float | None
    """None where the two cannot be compared; `how` says why."""
    stderr: float | None
    """The standard error of the difference; None where it is not known."""
    p: float | None
    """Two-sided: how likely a difference at least as large is where training changed nothing."""
    how: str
    adjusted: float | None = None
    """`p` by Holm's correction for all tasks, of the first metric of each task that was asked for."""

    @property
    def share(self) -> bool:
        return is_share(self.before) and is_share(self.after)

    @property
    def significant(self) -> bool:
        return self.adjusted is not None and self.adjusted < LEVEL

    @property
    def better(self) -> bool | None:
        """Whether it has become better; None where that is not known of its metric, or nothing has changed."""
        higher = higher_is_better(self.before, self.after)
        return (self.difference > 0) == higher if self.difference and higher is not None else None


def changes(run: RunFiles) -> list[Change]:
    """Of every metric that was measured before training and after it, or between steps where it has not ended; in the
    order of the later scores."""
    evaluated = run.evaluated
    times: tuple[Time, Time] = ("before", evaluated.latest)
    before = {key_of(score): score for score in evaluated.scores("before")}
    found = [(before[key_of(score)], score) for score in evaluated.scores(evaluated.latest) if key_of(score) in before]
    by_question = _by_question(run) if found else {}
    made = []
    for one, other in found:
        both = [evaluated.at(when)[other.task].evaluation for when in times]
        made.append(_change(one, other, [each.settings if each else None for each in both], by_question))
    return _adjusted(made, evaluated.headline)


def _adjusted(found: list[Change], headline: Collection[str]) -> list[Change]:
    """With adjusted p-values of the first metric of each task that was asked for, which are what one looks at."""
    tasks = [change.after.task for change in found]
    first = [at for at, task in enumerate(tasks) if task in headline and task not in tasks[:at]]
    p_values = {at: p for at in first if (p := found[at].p) is not None}
    adjusted = dict(zip(p_values, holm([*p_values.values()]), strict=True))
    return [replace(change, adjusted=adjusted.get(at)) for at, change in enumerate(found)]


def measured_since(run: RunFiles) -> str:
    """What the scores after training were measured with that those before were not; empty where nothing is known."""
    before, later = (run.evaluated.at(when) for when in ("before", run.evaluated.latest))
    both = [(before[task].evaluation, one.evaluation) for task, one in later.items() if task in before]
    found = {measured_otherwise(one.settings, other.settings) for one, other in both if one and other}
    return "; ".join(sorted(filter(None, found)))


def _change(
    before: Score, after: Score, settings: Sequence[dict[str, Any] | None], by_question: dict[Key, tuple]
) -> Change:
    if other := _asked_otherwise(before, after, settings):
        return Change(before, after, None, None, None, f"not comparable: {other}")
    first, second = by_question.get(key_of(after), ((), ()))
    if len(first) == before.n == after.n and (paired := paired_difference(first, second)) is not None:
        return Change(before, after, paired.value, paired.stderr, paired.p, f"paired, {paired.method}")
    difference, stderr = after.value - before.value, None
    if before.stderr is not None and after.stderr is not None:
        stderr = math.hypot(before.stderr, after.stderr)
    right, others = _right(before), _right(after)
    if 0.0 in (before.stderr, after.stderr) and right is not None and others is not None:  # no z test with that
        exact = fisher_p_value((right, before.n), (others, after.n))
        return Change(before, after, difference, None, exact, f"{UNPAIRED}, {FISHER}")
    enough = min(before.n, after.n) >= FEWEST  # standard errors of a few questions are too uncertain
    p = math.erfc(abs(difference) / stderr / math.sqrt(2)) if stderr and enough else None
    return Change(before, after, difference, stderr, p, f"{UNPAIRED}, z test" if p is not None else UNPAIRED)


def _right(score: Score) -> int | None:
    """How many outputs are right; None where a metric is no share of them."""
    count = score.value * score.n
    return round(count) if is_share(score) and abs(count - round(count)) < ROUNDING * score.n else None


def _asked_otherwise(before: Score, after: Score, settings: Sequence[dict[str, Any] | None]) -> str:
    """Why two scores are not of the same questions, asked in the same way; empty where they are."""
    reasons = {
        "other worked examples": before.shots != after.shots,
        "another number of questions": before.n != after.n,
    }
    if (one := settings[0]) is not None and (other := settings[1]) is not None:
        reasons["another chat template"] = before.template != after.template
        digests = [each.get("questions", {}).get(after.task) for each in (one, other)]
        reasons["other questions"] = digests[0] != digests[1]
    return ", ".join(reason for reason, found in reasons.items() if found)


def _by_question(run: RunFiles) -> dict[Key, tuple[list[float], list[float]]]:
    """The values of each metric, question by question: before and after."""
    found: dict[Key, tuple[list[float], list[float]]] = {}
    samples = run.evaluated.samples
    for one, other in pairs(samples.get("before", []), samples.get(run.evaluated.latest, [])):
        for metric in one.metrics.keys() & other.metrics.keys():
            first, second = found.setdefault((one.task, metric), ([], []))
            first.append(one.metrics[metric])
            second.append(other.metrics[metric])
    return found
