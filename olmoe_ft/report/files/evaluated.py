"""What a run's scores of each task are of: an evaluation before training, at a step between, or after it."""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from olmoe_ft.evaluation.answered import Answered
from olmoe_ft.evaluation.answers import EXACT, STYLE, stderr_of_share
from olmoe_ft.evaluation.files import read_samples
from olmoe_ft.evaluation.listed import check_score
from olmoe_ft.evaluation.score import Evaluation, Sample, Score
from olmoe_ft.evaluation.wanted import ANSWERS
from olmoe_ft.recipe import UserError

Time = Literal["before", "training", "after"]
TIMES: tuple[Time, ...] = ("before", "training", "after")


@dataclass(frozen=True)
class Measured:
    """One task, measured once."""

    scores: list[Score]
    """Empty where another model has to judge the outputs."""
    evaluation: Evaluation | None
    """None where the scores are those of `summary.json`, as in runs of older versions."""
    seen: Evaluation | None
    """The evaluation that has answers and loads of the task; `evaluation` where that is one."""

    @property
    def how(self) -> str:
        """What is unlike a run's own evaluation; empty where nothing is."""
        if self.evaluation is None or self.evaluation.when != "command":
            return ""
        limit = limit_of(self.evaluation)
        return "by command" if limit is None else f"by command, the first {limit:,}"


@dataclass
class Evaluated:
    """The evaluations of a run, by time and task.

    After training each task is that of the run's own evaluation; where that lacks it, of `summary.json`; then of an
    evaluation of the final step by command, the newest in full, or where there is none that with the most questions.
    """

    path: Path
    evaluations: Sequence[Evaluation]
    """Of `evaluation.json`, the newest last."""
    summary: dict[str, Any]
    end: int | None
    """The final step; None of a run that has not finished."""
    unreadable: list[str] = field(default_factory=list)
    """Grows by a sentence for each file that cannot be read."""

    def at(self, when: Time) -> dict[str, Measured]:
        """By task what was measured at a time: those that were asked for, and members of groups."""
        return self._by_time[when]

    def scores(self, when: Time) -> list[Score]:
        """All scores of a time."""
        return [score for one in self.at(when).values() for score in one.scores]

    def asked(self, when: Time) -> list[Score]:
        """The scores of a time without those of groups' members."""
        return [score for score in self.scores(when) if score.task in self.headline]

    @cached_property
    def latest(self) -> Time:
        """The time of the newest scores beside those before training: "training" of a run that has none of its end."""
        return "training" if self.at("training") and not self.at("after") else "after"

    def title(self, when: Time) -> str:
        """`before`, `step 200`, `after`."""
        steps = [one.step for one in self.used(when) if one.step is not None]
        return f"step {max(steps):,}" if when == "training" and steps else when

    def used(self, when: Time) -> list[Evaluation]:
        """The evaluations that a time's scores are of."""
        found = {id(one.evaluation): one.evaluation for one in self.at(when).values() if one.evaluation is not None}
        return [*found.values()]

    @cached_property
    def headline(self) -> set[str]:
        """The tasks that were asked for; not the members of a group that has a score."""
        asked = {task for when in TIMES for one in self.used(when) for task in one.settings["tasks"]}
        summed_up = (task for when in TIMES for task, one in self.at(when).items() if one.evaluation is None)
        return asked.union(summed_up)

    @cached_property
    def others(self) -> list[tuple[Evaluation, list[Score]]]:
        """Evaluations by command, and what they have that is not shown as after training; the newest first."""
        after = self.at("after")
        found = []
        for one in reversed(self.evaluations):
            left = [score for score in one.headline if after[score.task].evaluation is not one] if self._is(one) else []
            left += [] if self._is(one) or one.when != "command" else one.headline
            found += [(one, left)] if left else []
        return found

    @cached_property
    def samples(self) -> dict[Time, list[Sample]]:
        """The samples before training and of the newest time after its start, each of the evaluation of its task."""
        times: tuple[Time, ...] = ("before", self.latest)
        return {when: found for when in times if (found := [*self._samples(when)])}

    def _samples(self, when: Time) -> Iterator[Sample]:
        taken = {task: one.seen for task, one in self.at(when).items()}
        for evaluation in {id(one): one for one in taken.values() if one is not None}.values():
            try:
                found = read_samples(self.path, evaluation=evaluation)
            except UserError as error:
                self._note(str(error))
                continue
            yield from (sample for sample in found if taken.setdefault(sample.task, evaluation) is evaluation)

    @cached_property
    def _by_time(self) -> dict[Time, dict[str, Measured]]:
        commands = [one for one in reversed(self.evaluations) if self._is(one)]
        in_order = sorted(commands, key=lambda one: -(limit_of(one) or math.inf))
        newest = max((one.step or 0 for one in self._own("training")), default=None)
        return {
            "before": _by_task(self._own("before"), self._summed_up("before")),
            "training": _by_task([one for one in self._own("training") if (one.step or 0) == newest]),
            "after": _by_task(self._own("after"), self._summed_up("after"), in_order),
        }

    def _own(self, when: Time) -> list[Evaluation]:
        """The run's own, the newest first."""
        return [one for one in reversed(self.evaluations) if one.when == when]

    def _is(self, one: Evaluation) -> bool:
        """Whether it is of the final step, by command."""
        return one.when == "command" and one.step is not None and one.step == self.end

    def _summed_up(self, when: Time) -> Sequence[Score]:
        """The scores in `summary.json`; of an older version the answers to held-out prompts alone."""
        try:
            if listed := (self.summary.get("scores") or {}).get(when):
                for one in listed:
                    check_score(one)
                return [Score.read(one) for one in listed]
            answered = Answered.read(self.summary.get(when))
            return [*_answered(answered)] if answered is not None else []
        except (TypeError, ValueError, KeyError, AttributeError, OverflowError):
            self._note(f"{self.path / 'summary.json'} cannot be read: its scores are damaged")
            return []

    def _note(self, sentence: str) -> None:
        if sentence not in self.unreadable:
            self.unreadable.append(sentence)


def limit_of(evaluation: Evaluation) -> int | None:
    """How many questions of each task were put at most."""
    limit = evaluation.settings.get("limit")
    return limit if isinstance(limit, int) and limit > 0 else None


def _by_task(*sources: Iterable[Evaluation | Score]) -> dict[str, Measured]:
    """Of each task the first that has it."""
    found: dict[str, Measured] = {}
    for one in (one for ones in sources for one in ones):
        if isinstance(one, Score):
            known = found.setdefault(one.task, Measured([], None, None))
            known.scores.extend([one] if known.evaluation is None else [])
            continue
        for task in dict.fromkeys([*(score.task for score in one.scores), *one.settings["tasks"], *one.loads]):
            known = found.setdefault(task, Measured([score for score in one.scores if score.task == task], one, one))
            if known.seen is None:
                found[task] = replace(known, seen=one)
    return found


def _answered(answered: Answered) -> Iterator[Score]:
    """The scores of a run whose version kept none. How many prompts a skill has it did not say: their n is 0.

    Raises:
        TypeError, ValueError: a value is no number.
    """
    n = answered.count
    if not isinstance(n, int):
        raise TypeError(n)
    yield Score(ANSWERS, EXACT, answered.exact_match, stderr_of_share(answered.exact_match, n), n, 0, None)
    for skill, share in answered.skills.items():
        yield Score(ANSWERS, f"{EXACT}/{skill}", float(share), None, 0, 0, None)
    for style, share in answered.styles.items():
        yield Score(ANSWERS, f"{STYLE}{style}", float(share), stderr_of_share(share, n), n, 0, None)
