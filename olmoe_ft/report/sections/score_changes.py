"""How scores have changed from before to after training, and whether that may be chance."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from olmoe_ft.evaluation.answered import Answered
from olmoe_ft.evaluation.direction import higher_is_better
from olmoe_ft.evaluation.paired import pairs
from olmoe_ft.evaluation.score import Score
from olmoe_ft.evaluation.table import is_share
from olmoe_ft.evaluation.wanted import ANSWERS
from olmoe_ft.report.comparison.measured import measured_otherwise
from olmoe_ft.report.comparison.significance import FEWEST, LEVEL, paired_difference
from olmoe_ft.report.files.data_report import mapping, note
from olmoe_ft.report.files.run_files import RunFiles

UNPAIRED = "unpaired"

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

    @property
    def share(self) -> bool:
        return is_share(self.before) and is_share(self.after)

    @property
    def significant(self) -> bool:
        return self.p is not None and self.p < LEVEL

    @property
    def better(self) -> bool | None:
        """Whether it has become better; None where that is not known of its metric, or nothing has changed."""
        higher = higher_is_better(self.before, self.after)
        return (self.difference > 0) == higher if self.difference and higher is not None else None


def scores_at(run: RunFiles, when: str) -> list[Score]:
    """The scores of a time: of its newest evaluation, or as `summary.json` has them from an older version."""
    found = [one for one in run.evaluations if one.when == when]
    evaluation = run.evaluation(when) if when in ("before", "after") else (found[-1] if found else None)
    if evaluation is not None:
        return evaluation.scores
    summary = run.summary or {}
    try:
        if listed := mapping(summary.get("scores")).get(when):
            return [Score.read(one) for one in listed]
        answered = Answered.read(summary.get(when))
        return [_answered(answered)] if answered is not None else []
    except (TypeError, ValueError, KeyError, AttributeError):
        note(run, f"{run.path / 'summary.json'} cannot be read: its scores are damaged")
        return []


def changes(run: RunFiles) -> list[Change]:
    """Of every metric that was measured both times, in the order of after."""
    before = {key_of(score): score for score in scores_at(run, "before")}
    settings = [one.settings if (one := run.evaluation(when)) else None for when in ("before", "after")]
    found = [(before[key_of(score)], score) for score in scores_at(run, "after") if key_of(score) in before]
    by_question = _by_question(run) if found else {}
    return [_change(*pair, settings, by_question) for pair in found]


def measured_since(run: RunFiles) -> str:
    """What the scores after training were measured with that those before were not; empty where nothing is known."""
    before, after = (run.evaluation(when) for when in ("before", "after"))
    return measured_otherwise(before.settings, after.settings) if before is not None and after is not None else ""


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
    enough = min(before.n, after.n) >= FEWEST  # standard errors of a few questions are too uncertain
    p = math.erfc(abs(difference) / stderr / math.sqrt(2)) if stderr and enough else None
    return Change(before, after, difference, stderr, p, f"{UNPAIRED}, z test" if p is not None else UNPAIRED)


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
    for one, other in pairs(run.samples.get("before", []), run.samples.get("after", [])):
        for metric in one.metrics.keys() & other.metrics.keys():
            first, second = found.setdefault((one.task, metric), ([], []))
            first.append(one.metrics[metric])
            second.append(other.metrics[metric])
    return found


def _answered(answered: Answered) -> Score:
    """The exact match of a run whose version kept no scores."""
    share, n = answered.exact_match, answered.count
    stderr = math.sqrt(share * (1 - share) / (n - 1)) if n > 1 else None
    return Score(ANSWERS, "exact_match", share, stderr, n, 0, None)
