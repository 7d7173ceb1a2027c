"""The section `data` of a recipe: sources, held-out prompts, and how rows are read and cut."""

from collections.abc import Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from pydantic import Field, field_validator, model_validator
from pydantic_core import PydanticCustomError

from olmoe_ft.recipe.section import Section, Text
from olmoe_ft.stages import STAGES

if TYPE_CHECKING:  # a name that the stages give
    Format: TypeAlias = str
else:
    Format = Literal[*dict.fromkeys(format for stage in STAGES.values() for format in stage.formats)]
Cut = Literal["drop", "keep_start", "keep_end"]


def label_name(value: str | float) -> str:
    """A label as it is looked up: in lower case, true for True, 1 for 1.0."""
    with suppress(ValueError, OverflowError):
        if not isinstance(value, bool) and float(value).is_integer():
            return str(int(float(value)))
    return str(value).strip().lower()


class Source(Section):
    """Rows to train or evaluate on."""

    path: Text
    """File (.jsonl, .json, .csv, each also as .gz; .parquet), folder or Hub name."""
    weight: float = Field(1.0, gt=0, le=1)
    """Share of the rows to use. They are drawn once, by the seed: 0.2 is the same fifth of the rows in every epoch."""
    repeat: int = Field(1, ge=1)
    """How often each drawn row is used in an epoch."""
    max_rows: int | None = Field(None, ge=1)
    """Read only this many rows from the start of the source; `weight` then draws from these."""
    format: Format | None = None
    """Format of the rows. By default it is recognised from their keys."""
    columns: Mapping[str, Text] = Field(default_factory=dict)
    """Keys to rename before a row is read, from the name in the file to the name of the format: `{query: prompt}`."""
    ignore: tuple[Text, ...] = Field((), strict=False)
    """Keys of rows, turns and content parts to leave out, although they could be part of the example:
    `[images, label]`. A key like that is an error unless it is listed here."""
    labels: Mapping[str, bool] = Field(default_factory=dict)
    """What stage kto reads in `label`, and whether it means a good answer: `{good: true, bad: false}`. By default true
    and 1 are good, false and 0 are bad. Small and capital letters are the same; numbers need quotes: `{"5": true}`."""
    split: Text = "train"
    """Split of a folder or Hub dataset."""
    config: Text | None = None
    """Configuration of a folder or Hub dataset that has several."""
    revision: Text | None = None
    """Branch, tag or commit of a Hub dataset."""

    @field_validator("columns")
    @classmethod
    def _one_name_each(cls, columns: Mapping[str, str]) -> Mapping[str, str]:
        if len(set(columns.values())) < len(columns):
            raise PydanticCustomError("expected", "a different new name for each column; rename one of them")
        return columns

    @field_validator("labels")
    @classmethod
    def _one_meaning_each(cls, labels: Mapping[str, bool]) -> Mapping[str, bool]:
        named = {label_name(label): good for label, good in labels.items()}
        if len(named) < len(labels):
            raise PydanticCustomError("expected", "labels that differ in more than capital letters; remove one of them")
        if "" in named:
            raise PydanticCustomError("expected", "labels that are not empty; a row without a label is an error")
        return named


class Benchmark(Section):
    """Questions that should not appear in the training rows."""

    path: Text
    """File, folder or Hub name."""
    columns: Mapping[str, Text] = Field(default_factory=dict)
    """Keys to rename before a row is read. The question is taken from the first of these keys that is filled:
    `question`, `prompt`, `problem`, `query`, `instruction`, `input`, `messages`, `conversations`, `turns`, `text`."""
    split: Text | None = None
    """Split of a folder or Hub dataset, by default test."""
    config: Text | None = None
    """Configuration of a Hub dataset that has several."""
    revision: Text | None = None
    """Branch, tag or commit of a Hub dataset."""

    @model_validator(mode="before")
    @classmethod
    def _path_alone(cls, value: Any) -> Any:
        return {"path": value} if isinstance(value, str) else value


class Answers(Section):
    """Held-out prompts with known answers. The model answers them greedily, before and after training."""

    path: Text
    """File of rows, each with a prompt and an `answer`."""
    max_new_tokens: int = Field(64, ge=1)
    """Maximum length of a completion, in tokens."""
    batch_size: int = Field(128, ge=1)
    """Prompts that each process answers at once."""
    limit: int | None = Field(None, ge=1)
    """Use only this many prompts from the start of the file."""


class Data(Section):
    """The rows that the stage learns from and is measured on."""

    train: tuple[Source, ...] = Field(strict=False)
    """Sources that are mixed for training, at least one."""
    eval: tuple[Source, ...] = Field((), strict=False)
    """Sources for the evaluation loss."""
    answers: Answers | None = None
    """Held-out prompts; the model's answers are compared with the known ones."""
    learn: Literal["all_answers", "last_answer", "completion"] = "all_answers"
    """Which assistant turns stage sft learns: all of them, the last one of each row, or only those in `completion` (or
    Alpaca's `output`) and none in the prompt. Plain texts are learned whole."""
    turn_marks: Literal["refuse", "obey"] = "refuse"
    """Marks on single turns (`train`, `trainable`, `loss`, `loss_mask`, `weight`, `loss_weight`; 0, 1, true or false):
    `refuse` a mark that would leave an answer out, or `obey` it. Marks choose among the turns that `learn` selects."""
    max_prompt_length: int | None = Field(None, ge=1)
    """Prompt tokens to keep in a row longer than `training.max_length`. The default with `long_prompts: keep_end` is as
    many as the answer leaves room for; otherwise as many as fit into `max_length`. A row within `training.max_length`
    is never cut."""
    long_prompts: Cut = "keep_start"
    """What to do with a prompt that is too long: keep its start, keep its end (and the BOS), or drop the row. The
    prompt is everything before the last answer that is learned."""
    long_answers: Cut = "keep_start"
    """What to do with an answer that then still does not fit: keep its start (and lose the EOS), keep its end, or drop
    the row."""
    malformed: Literal["stop", "drop"] = "stop"
    """What to do with a row that cannot be read: stop, or drop the row and count it."""
    max_dropped: float = Field(0.01, ge=0, le=1)
    """Largest share of a source's rows that may be dropped, because they are malformed or have no token to learn. Above
    it the run stops."""
    decontaminate_against: tuple[Benchmark, ...] = Field((), strict=False)
    """Benchmarks to look for in the training rows: paths or Hub names, or `{path: …, split: …}`."""
    decontaminate: bool = False
    """Leave out rows that contain a held-out prompt (of `eval`, `answers` or `decontaminate_against`): 13 words in a
    row, or the whole of a shorter prompt. They are reported either way."""
    cache: Text | None = None
    """Folder that keeps the rows once they are read and tokenized; `olmoe-ft prepare` fills it. By default it is beside
    the cache of the `datasets` library."""
