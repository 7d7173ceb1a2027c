"""The scores of several runs, and which differences from the first one are more than chance."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

from olmoe_ft.evaluation.direction import higher_is_better
from olmoe_ft.evaluation.files import chosen, read_samples
from olmoe_ft.evaluation.paired import pairs
from olmoe_ft.evaluation.score import Evaluation, Sample, Score
from olmoe_ft.recipe import UserError
from olmoe_ft.report.comparison.compared import Compared
from olmoe_ft.report.comparison.measured import measured, measured_otherwise
from olmoe_ft.report.comparison.significance import Difference, holm, paired_difference
from olmoe_ft.report.texts import cut

ANSWER, PROMPT = 1500, 6000  # characters that are kept of each

Key = tuple[str, str]  # task and metric
Asked = tuple[tuple[tuple[str, str], ...], str | None, int | None, int]


def asked(evaluation: Evaluation, score: Score) -> Asked:
    """What two scores must have in common to be compared: the questions, the chat template, the limit, the examples.

    The questions of a group of tasks are those of its members.
    """
    digests = evaluation.settings.get("questions") or {}
    names = chosen(score.task, digests) or list(digests)
    questions = tuple(sorted((name, str(digests[name])) for name in names))
    return questions, score.template, evaluation.settings.get("limit"), score.shots


def not_comparable(first: Asked, other: Asked) -> str:
    """Why two scores cannot be compared; empty where they can."""
    names = ("other questions", "another chat template", "another limit", "other worked examples")
    found = [name for name, one, two in zip(names, first, other, strict=True) if one != two]
    return f"not comparable: {', '.join(found)}" if found else ""


@dataclass(frozen=True)
class Tested:
    """A difference from the first run."""

    difference: Difference
    adjusted: float
    """Its p-value by Holm's correction for all differences of the page."""


@dataclass(frozen=True)
class AskedOfAll:
    """A question and the answer of each run, by the run's place; runs that were not asked it are not there."""

    task: str
    answers: dict[int, Sample]


@dataclass
class ComparedScores:
    """The newest scores of each run after its steps.

    An evaluation during the run, at its end or by hand counts, of the last step that any of the run's evaluations has.
    Of several with one task, each run has the one that was asked, and then measured, as most other runs were.
    """

    runs: Sequence[Compared]
    unreadable: list[str] = field(default_factory=list)
    """Samples that cannot be read; a sentence each."""

    @cached_property
    def evaluations(self) -> list[dict[str, Evaluation]]:
        """Of each run by task."""
        candidates = [_candidates(one) for one in self.runs]
        found: list[dict[str, Evaluation]] = [{} for _ in self.runs]
        for task in dict.fromkeys(task for of_run in candidates for task in of_run):
            counts = Counter(
                same
                for of_run in candidates
                for same in {like for one in of_run.get(task, ()) for like in _likenesses(task, one)}
            )
            for place, of_run in enumerate(candidates):
                if ones := of_run.get(task):
                    found[place][task] = max(ones, key=lambda one: [counts[like] for like in _likenesses(task, one)])
        return found

    @cached_property
    def keys(self) -> list[Key]:
        """The tasks and metrics that any run has, in the order of the runs."""
        scores = [score for place in range(len(self.runs)) for score in self._of(place)]
        tasks = dict.fromkeys(score.task for score in scores)
        return list(dict.fromkeys((task, score.metric) for task in tasks for score in scores if score.task == task))

    @cached_property
    def main(self) -> Key | None:
        """The score that one looks at first: the first metric of a task that most runs have."""
        firsts = [key for number, key in enumerate(self.keys) if key[0] not in {task for task, _ in self.keys[:number]}]
        counts = {key: sum(self.score(place, key) is not None for place in range(len(self.runs))) for key in firsts}
        return max(firsts, key=lambda key: counts[key], default=None)

    def score(self, place: int, key: Key) -> Score | None:
        """A run's; None where it has none."""
        return next((one for one in self._of(place) if (one.task, one.metric) == key), None)

    def apart(self, place: int, task: str) -> str:
        """Why a run's scores of a task cannot be compared with the first run's; empty where they can."""
        one, other = (self.evaluations[at].get(task) for at in (0, place))
        return not_comparable(_asked_of(task, one), _asked_of(task, other)) if one and other else ""

    def remark(self, place: int, task: str) -> str:
        """What else was measured otherwise than in the first run, where the scores can be compared."""
        one, other = (self.evaluations[at].get(task) for at in (0, place))
        return measured_otherwise(one.settings, other.settings) if one and other and not self.apart(place, task) else ""

    def higher_is_better(self, key: Key) -> bool | None:
        """Whether more of a score is better; None where neither is, or it is not known."""
        found = [score for place in range(len(self.runs)) if (score := self.score(place, key)) is not None]
        return higher_is_better(*found)

    @cached_property
    def questions(self) -> dict[str, list[AskedOfAll]]:
        """By task the questions of the first run that has it, and who else was asked the same."""
        return {task: list(self._asked_of_all(task)) for task in dict.fromkeys(task for task, _ in self.keys)}

    @cached_property
    def tests(self) -> dict[tuple[int, Key], Tested]:
        """By run and score, where the samples of both runs have the metric for each question."""
        found: dict[tuple[int, Key], Difference] = {}
        for key in self.keys:
            questions = [one for one in self.questions[key[0]] if 0 in one.answers]
            for place in range(1, len(self.runs)):
                both = [(one.answers[0], one.answers[place]) for one in questions if place in one.answers]
                values = [(one.metrics.get(key[1]), two.metrics.get(key[1])) for one, two in both]
                known = [(one, two) for one, two in values if one is not None and two is not None]
                if known and len(known) == len(questions):
                    difference = paired_difference(*zip(*known, strict=True))
                    found |= {(place, key): difference} if difference is not None else {}
        adjusted = holm([one.p for one in found.values()])
        return {place: Tested(one, p) for (place, one), p in zip(found.items(), adjusted, strict=True)}

    def _of(self, place: int) -> Iterator[Score]:
        for task, evaluation in self.evaluations[place].items():
            yield from (score for score in evaluation.headline if score.task == task)

    @cached_property
    def _samples(self) -> list[dict[str, list[Sample]]]:
        """Of each run by task. Long answers are cut, and what several runs have in common is kept once."""
        texts: dict[str, str] = {}
        found = []
        for place, of_run in enumerate(self.evaluations):
            by_evaluation = {id(one): self._read(place, one, texts) for one in of_run.values()}
            samples = {}
            for task, evaluation in of_run.items():
                ones = by_evaluation[id(evaluation)]
                tasks = set(chosen(task, {sample.task for sample in ones}))
                samples[task] = [sample for sample in ones if sample.task in tasks]
            found.append(samples)
        return found

    def _read(self, place: int, evaluation: Evaluation, texts: dict[str, str]) -> list[Sample]:
        try:
            samples = read_samples(self.runs[place].run.path, evaluation=evaluation)
        except UserError as error:
            if str(error) not in self.unreadable:
                self.unreadable.append(str(error))
            return []
        return [_light(sample, texts) for sample in samples]

    def _asked_of_all(self, task: str) -> Iterator[AskedOfAll]:
        reference = next((place for place, samples in enumerate(self._samples) if samples.get(task)), None)
        if reference is None:
            return
        first = self._samples[reference][task]
        same = _asked_of(task, self.evaluations[reference][task])
        by_question: dict[tuple[str, int], dict[int, Sample]] = {(one.task, one.id): {reference: one} for one in first}
        for place in range(reference + 1, len(self.runs)):
            evaluation = self.evaluations[place].get(task)
            if evaluation is not None and _asked_of(task, evaluation) == same:
                for one, other in pairs(first, self._samples[place][task]):
                    by_question[one.task, one.id][place] = other
        yield from (AskedOfAll(task, answers) for answers in by_question.values())


def _candidates(one: Compared) -> dict[str, list[Evaluation]]:
    """Of the newest step with an evaluation, by task; the newest first."""
    after = [evaluation for evaluation in one.run.evaluations if evaluation.when != "before" and evaluation.step]
    newest = max((evaluation.step for evaluation in after if evaluation.step), default=None)
    found: dict[str, list[Evaluation]] = {}
    for evaluation in reversed(after):
        if evaluation.step == newest:
            for task in dict.fromkeys(score.task for score in evaluation.headline):
                found.setdefault(task, []).append(evaluation)
    return found


def _asked_of(task: str, evaluation: Evaluation) -> Asked:
    return asked(evaluation, next(score for score in evaluation.headline if score.task == task))


def _likenesses(task: str, evaluation: Evaluation) -> list[tuple]:
    """What it has in common with evaluations that can be compared with it, and with those that need no remark."""
    same = _asked_of(task, evaluation)
    return [(same,), (same, measured(evaluation.settings))]


def _light(sample: Sample, texts: dict[str, str]) -> Sample:
    def kept(text: str, most: int) -> str:
        short = cut(text, most)
        return texts.setdefault(short, short)

    prompt, output, expected = kept(sample.prompt, PROMPT), kept(sample.output, ANSWER), kept(sample.expected, ANSWER)
    return replace(sample, prompt=prompt, output=output, expected=expected, experts=[])
