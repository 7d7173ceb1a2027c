"""The figures of an evaluation: one `Score` for each metric of each task, one `Sample` for each question put.

They are what `evaluation.json` and `samples.jsonl` hold, in a run directory or beside a checkpoint.
"""

import hashlib
import json
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import numpy as np

from olmoe_ft.training.router.loads import shares

PLACE = re.compile(" at 0x[0-9a-f]+")
NUMBERS = ("value", "stderr", "clean_value")
When = Literal["before", "training", "after", "command"]


def digest(value: Any) -> str:
    """The first 12 digits of the SHA-256 of a value as JSON; what JSON has not, as text without its place in memory."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, default=str)
    return hashlib.sha256(PLACE.sub("", text).encode("utf-8", "surrogatepass")).hexdigest()[:12]


@dataclass(frozen=True)
class Score:
    """One metric of one task, as it was measured once."""

    task: str
    metric: str
    """By lm-eval's name; behind a slash the filter that read the output, if it has one: `exact_match/strict-match`."""
    value: float
    stderr: float | None
    """The standard error of `value`; None where there is none, as for one question."""
    n: int
    """Questions."""
    shots: int
    """Worked examples before the question."""
    template: str | None
    """The first 12 digits of the SHA-256 of the chat template; None where none was applied."""
    clean_value: float | None = None
    """The same without the questions that overlap the training rows; None where that is not known."""
    clean_n: int | None = None
    higher_is_better: bool | None = None
    """As the task says it; None where neither is better, or it is not known (`evaluation.direction` has more names)."""

    @classmethod
    def read(cls, values: Mapping[str, Any]) -> "Score":
        """As it is in a file: JSON has no NaN, so numbers may be texts.

        Raises:
            TypeError, ValueError, KeyError: it is no score.
        """
        numbers: dict[str, Any] = {name: float(values[name]) for name in NUMBERS if values[name] is not None}
        return cls(**{**values, **numbers})

    @property
    def name(self) -> str:
        """As it is named in `metrics.jsonl` and in W&B."""
        return f"eval/{self.task}/{self.metric}"

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Sample:
    """One question, what the model said, and how that was judged."""

    task: str
    id: int
    """The question's place in its task, from 0: the same in every evaluation of the task."""
    prompt: str
    """As rendered, chat template and all."""
    output: str
    """What was generated, special tokens left out; of several the first. Of a multiple choice, the choice that is most
    likely."""
    expected: str
    right: bool | None
    """The verdict of the task's first metric; None where it is not a matter of right and wrong."""
    metrics: dict[str, float]
    tokens: int
    """Generated, or scored where nothing is generated."""
    experts: list[list[float]] = field(default_factory=list)
    """The three busiest for these tokens: layer, expert, share of the layer's choices."""
    document: str = ""
    """A hash of the row that the question was made of: two evaluations asked the same where it is the same."""
    overlaps: bool = False
    """Whether the question is in the rows that the model was trained on, by their data report."""

    @property
    def busiest(self) -> str:
        """The busiest experts, for people."""
        return ", ".join(f"layer {layer:g} expert {expert:g}: {share:.0%}" for layer, expert, share in self.experts)

    def as_dict(self, step: int | None) -> dict[str, Any]:
        return {"step": step, **asdict(self)}

    @classmethod
    def read(cls, values: Mapping[str, Any]) -> "Sample":
        """A line of `samples.jsonl`.

        Raises:
            TypeError: it lacks a key, or has one too many.
        """
        return cls(**{name: value for name, value in values.items() if name != "step"})


@dataclass(frozen=True)
class Outcome:
    """What has come of putting tasks to a model."""

    scores: list[Score]
    samples: list[Sample]
    documents: list[Mapping[str, Any]]
    """The row that each sample's question was made of."""
    members: Mapping[str, Collection[str]] = field(default_factory=dict)
    """The tasks of each group of tasks."""
    headline: list[str] = field(default_factory=list)
    """The tasks and groups whose scores answer what was asked; not the members of a group that has a score."""
    judged: list[str] = field(default_factory=list)
    """Tasks without scores, as another model has to judge their outputs."""

    def loads(self, counts: Mapping[str, Sequence[Sequence[int]]]) -> dict[str, list[list[float]]]:
        """The experts' shares by headline task (`Evaluation.loads`), to five digits.

        Args:
            counts: choices of experts by task; of a task that is not there nothing is known.
        """
        found = {}
        for name in self.headline:
            own = [counts[task] for task in self.members.get(name, [name]) if task in counts]
            if own:
                found[name] = shares(np.sum(own, axis=0)).round(5).tolist()
        return found

    def __add__(self, other: "Outcome") -> "Outcome":
        return Outcome(
            self.scores + other.scores,
            self.samples + other.samples,
            self.documents + other.documents,
            {**self.members, **other.members},
            self.headline + other.headline,
            self.judged + other.judged,
        )


@dataclass(frozen=True)
class Evaluation:
    """All tasks put to one model once."""

    model: str
    step: int | None
    """The optimizer step of the run; None of a checkpoint that is no run's."""
    when: When
    scores: list[Score]
    samples: list[Sample] = field(repr=False)
    settings: dict[str, Any]
    """What the scores depend on: `tasks` (which answer what was asked), `asked` (as it was written), `questions` (a
    hash of each task's rows and settings), limit, batch size, chat template, precision, engine, version of lm-eval.
    And by task what did not fit into the network's positions: `cut_prompts`, prompts that lost their start, and
    `short_outputs`, the most tokens of an output where the task wants more."""
    seconds: float
    new_tokens: int
    """Generated, all questions together."""
    generating: float = 0.0
    """Seconds of `seconds` in which text was generated."""
    loads: dict[str, list[list[float]]] = field(default_factory=dict, repr=False)
    """By task of `headline`: of each layer the share of its choices that each expert got, over all tokens that were
    generated or scored; of a group of tasks those of all its members. Empty where the engine does not see it."""

    @property
    def tokens_per_second(self) -> float:
        """Generated tokens by the time of generation, in all processes together."""
        return self.new_tokens / self.generating if self.generating else 0.0

    @property
    def exact_match(self) -> float:
        """The share of right outputs in the first task that has it.

        Raises:
            LookupError: none has.
        """
        if (score := next((one for one in self.headline if one.metric == "exact_match"), None)) is None:
            raise LookupError(f"no task has exact_match: {[one.name for one in self.headline]}")
        return score.value

    @property
    def headline(self) -> list[Score]:
        """The scores of the tasks that were asked for, without those of a group's members."""
        return [score for score in self.scores if score.task in self.settings["tasks"]]

    def as_dict(self) -> dict[str, Any]:
        """As it is in `evaluation.json`; the samples are in a file of their own."""
        return {
            "model": self.model,
            "step": self.step,
            "when": self.when,
            "settings": self.settings,
            "seconds": self.seconds,
            "new_tokens": self.new_tokens,
            "generating": self.generating,
            "tokens_per_second": self.tokens_per_second,
            "scores": [score.as_dict() for score in self.scores],
            "loads": self.loads,
        }
