"""Which questions of an evaluation a run was trained on, by the report on its data; and scores without these.

What is not known stays unknown: a question counts as clean only if it was looked for in the rows of the run, and of
every run that it started from.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from olmoe_ft.checkpoints.run_checkpoints import read_object
from olmoe_ft.data.benchmarks import load_benchmark
from olmoe_ft.data.heldout import OWN, HeldOut, Prompt, place_of_answers
from olmoe_ft.data.words import asked, words
from olmoe_ft.evaluation.questions import load_questions
from olmoe_ft.evaluation.score import Outcome, Sample, Score
from olmoe_ft.reasons import one_line
from olmoe_ft.recipe import Recipe, UserError
from olmoe_ft.shipped import found as shipped_file
from olmoe_ft.shipped import shipped_name
from olmoe_ft.training.files import read_yaml

EXACT = 1e-9  # how closely a metric must be the mean of its samples


class LookedFor:
    """The questions that one run has looked for in its training rows, and those of them that kept rows contain."""

    def __init__(self, prompts: Sequence[Prompt], contained: Collection[str]) -> None:
        """
        Args:
            contained: the places of the prompts in rows that the run was trained on.
        """
        self._index = HeldOut(prompts)
        self._whole = [_spaced(" ".join(prompt.texts)) for prompt in prompts]
        self._contained = {index for index, one in enumerate(prompts) if shipped_name(one.place) in contained}

    def __len__(self) -> int:
        return len(self._whole)

    def in_document(self, document: Mapping[str, Any]) -> set[int]:
        """The indexes of the questions that a task's document holds, whole: 13 words are often those of another."""
        found: set[int] = set()
        for text in _texts(document):
            spaced = _spaced(text)
            found |= {one for one in self._index.standing_in([("user", spaced.split())]) if self._whole[one] in spaced}
        return found

    def contains(self, indexes: set[int]) -> bool:
        """Whether a row that the run was trained on has one of these questions."""
        return not self._contained.isdisjoint(indexes)


@dataclass(frozen=True)
class Overlaps:
    """What the data reports of a run, and of those it started from, say about questions."""

    runs: tuple[LookedFor, ...]
    unknown: dict[str, str]
    """By benchmark the reason why a report does not say which of its questions the rows contain."""

    def has(self, document: Mapping[str, Any]) -> bool:
        """Whether rows that were trained on contain the question of a task's document."""
        return any(run.contains(run.in_document(document)) for run in self.runs)

    def looked_for(self, document: Mapping[str, Any]) -> bool:
        """Whether the question was looked for, in the rows of each run; else `has` says nothing about it."""
        return all(run.in_document(document) for run in self.runs)


def overlapping_questions(run: Path) -> Overlaps | None:
    """What is known of the questions that the rows of a run contain; those that were dropped do not count.

    Args:
        run: a run directory, or a checkpoint in one.
    Returns:
        None where nothing is known: one of the runs has no report, or has looked for no question.
    """
    runs: list[LookedFor] = []
    unknown: dict[str, str] = {}
    place: Path | None = run
    seen: set[Path] = set()
    while place is not None and (folder := _run_of(place)) not in seen:
        found = _of_run(folder, unknown) if folder is not None else None
        if folder is None or found is None:
            return None
        recipe, looked_for = found
        seen.add(folder)
        runs.append(looked_for)
        place = _started_from(recipe)
    return Overlaps(tuple(runs), unknown) if all(map(len, runs)) or unknown else None


def without_seen(outcome: Outcome, overlaps: Overlaps) -> Outcome:
    """The same with samples that overlap marked, and second values without them: of each metric that is a mean over
    samples, where every question of its task was looked for."""
    samples = [
        replace(sample, overlaps=overlaps.has(document))
        for sample, document in zip(outcome.samples, outcome.documents, strict=True)
    ]
    pairs = zip(samples, outcome.documents, strict=True)
    unknown = {sample.task for sample, document in pairs if not overlaps.looked_for(document)}
    scores = []
    for score in outcome.scores:
        tasks = {*outcome.members.get(score.task, [score.task])}
        scores.append(score if tasks & unknown else replace(score, **_clean(score, samples, tasks)))
    return replace(outcome, scores=scores, samples=samples)


def _clean(score: Score, samples: Sequence[Sample], tasks: Collection[str]) -> dict[str, Any]:
    own = [sample for sample in samples if sample.task in tasks and score.metric in sample.metrics]
    values = [sample.metrics[score.metric] for sample in own]
    if not values or len(values) != score.n or not abs(sum(values) / len(values) - score.value) <= EXACT:
        return {}
    clean = [value for value, sample in zip(values, own, strict=True) if not sample.overlaps]
    return {"clean_value": sum(clean) / len(clean) if clean else None, "clean_n": len(clean)}


def _of_run(folder: Path, unknown: dict[str, str]) -> tuple[Recipe, LookedFor] | None:
    """The recipe of a run, and what its report says; None where one of them cannot be read."""
    try:
        recipe = Recipe.model_validate(read_yaml(folder / "recipe.yaml"))
        report = read_object(folder / "data_report.json") or {}
        groups = {group: _contained(report, group) for group in report["groups"]}
    except (ValidationError, KeyError, TypeError, AttributeError):
        return None
    prompts: list[Prompt] = []
    contained: set[str] = set()
    for group, places in groups.items():
        try:
            found = _questions(group, recipe)
            _check(group, report, found, places)
        except UserError as error:
            unknown[group] = one_line(error)
        else:
            prompts += found
            contained |= places
    return recipe, LookedFor(prompts, contained)


def _contained(report: Mapping[str, Any], group: str) -> set[str]:
    """The places of a group's questions in kept rows, of the rows that a report lists."""
    rows = [row for source in report["sources"] for row in source["overlapping"]]
    return {shipped_name(place) for row in rows if row["group"] == group and row["kept"] for place in row["prompts"]}


def _check(group: str, report: Mapping[str, Any], found: Sequence[Prompt], places: set[str]) -> None:
    """Whether the questions that rows contain are all known.

    Raises:
        UserError: with the reason why they are not.
    """
    for source in report["sources"]:
        listed = sum(row["group"] == group and row["kept"] for row in source["overlapping"])
        if listed < (kept := source["overlaps"][group]["kept"]):
            raise UserError(
                f"the data report lists {listed:,} of {kept:,} rows of {source['path']} that contain such questions"
            )
    if group != OWN and len(found) != report["groups"][group]:
        raise UserError(f"it had {report['groups'][group]:,} questions when it was looked for, and has {len(found):,}")
    if "" in places:
        raise UserError("the data report is of an older version, which does not say which questions were found")


def _questions(group: str, recipe: Recipe) -> list[Prompt]:
    """The questions of a group that can be a task's: a benchmark's, or those of `data.answers`.

    Raises:
        UserError: they cannot be read any more.
    """
    if group == OWN:
        if (answers := recipe.data.answers) is None:
            return []
        questions = load_questions(answers.model_copy(update={"path": shipped_file(answers.path)}))
        return [Prompt(one.texts(), OWN, place_of_answers(number)) for number, one in enumerate(questions, 1)]
    return [
        prompt
        for benchmark in recipe.data.decontaminate_against
        if shipped_name(benchmark.path) == shipped_name(group)
        for prompt in load_benchmark(benchmark.model_copy(update={"path": shipped_file(benchmark.path)}))
    ]


def _run_of(place: Path) -> Path | None:
    """The run directory that a path is, or whose `final/` or checkpoint it is."""
    if place.name == "final":
        place = place.parent
    elif place.parent.name == "checkpoints":
        place = place.parent.parent
    return place if (place / "recipe.yaml").is_file() else None


def _started_from(recipe: Recipe) -> Path | None:
    """The run whose weights a run began with, which may be gone; None where it began with weights that are no run's."""
    if (path := recipe.model.path) is None:
        return None
    if Path(path).exists():
        return Path(path) if _run_of(Path(path)) is not None else None
    return Path(path) if path.startswith((".", "/", "runs/")) or path.count("/") > 1 else None


def _texts(value: Any) -> Iterator[str]:
    """Every text in a document; of a conversation also what the user says, of a list of texts all together."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for inner in value.values():
            yield from _texts(inner)
    elif isinstance(value, list | tuple):
        if all(isinstance(one, Mapping) and {"role", "content"} <= one.keys() for one in value):
            yield " ".join(asked((str(one["role"]), str(one["content"])) for one in value))
        elif all(isinstance(one, str) for one in value):
            yield " ".join(value)
        for inner in value:
            yield from _texts(inner)


def _spaced(text: str) -> str:
    """The words of a text, each between spaces."""
    return f" {' '.join(words(text))} "
