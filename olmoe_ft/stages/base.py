"""What a stage answers: its light half about rows and recipes, its heavy half about batches and losses.

The light half is asked by recipe/, data/ and planning/ and needs no torch; the heavy half is asked once a stage trains
or a step is planned. Imports are inside the functions that need them, so that both halves of a stage are one file.
Shapes: B rows of a batch (of pairs: 2 a pair), S positions, N labels.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

if TYPE_CHECKING:
    from datasets import Dataset
    from torch import Tensor
    from transformers import PreTrainedTokenizerBase

    from olmoe_ft.data.length import Length
    from olmoe_ft.data.rows import Reading
    from olmoe_ft.recipe.options.given import Given
    from olmoe_ft.recipe.wording import Problem

TrainerArguments = Any  # TRL's configuration of a stage: `SFTConfig`, `DPOConfig`, ...


class Metric(NamedTuple):
    """A number that an evaluation of a stage measures."""

    unit: str
    """What it is a mean over: a key of `Stage.counts`."""
    better: bool | None
    """True: greater is better. False: smaller is. None: neither is."""


class Packing(NamedTuple):
    """How rows are laid end to end, by TRL's names."""

    max_length: int | None
    strategy: str


class Tally(NamedTuple):
    """A number of things that the audit of a stage counts."""

    number: int
    of: int
    """All that it is a share of."""

    def __str__(self) -> str:
        return f"{self.number:,} ({self.number / max(1, self.of):.0%})"


class Forwards(NamedTuple):
    """How often each sequence runs forward in a step without being learned from."""

    policy: int = 0
    reference: int = 0


class Stage(ABC):
    """One kind of training. A stage's attributes and methods are all that the rest of the package knows of it."""

    name: ClassVar[str]
    """As `stage:` in a recipe."""
    title: ClassVar[str]
    """As it is said in a sentence."""
    trl: ClassVar[str]
    """TRL's name: "SFT" of `SFTConfig`, `SFTTrainer` and `trainer/sft_config.py`."""
    unit: ClassVar[str]
    """What a row is called where rows are counted."""
    formats: ClassVar[tuple[str, ...]]
    """Values of `format` beside a source's `path` that it learns from."""
    sequences: ClassVar[tuple[tuple[str, ...], ...]]
    """The columns that one sequence of the network is made of, for each sequence of a row that is learned from."""
    estimated: ClassVar[tuple[str, ...]] = ()
    """The columns of a sequence that runs forward alone, where rows are joined: the loss has an estimate made of it."""
    metrics: ClassVar[Mapping[str, Metric]]
    """Of its evaluation, without `eval_`."""
    options: ClassVar[Mapping[str, str]] = {}
    """Fields of TRL's configuration that not every stage has and this one obeys: what each does."""
    selective_checkpointing: ClassVar[bool] = False
    """Whether TRL's configuration takes `selective` among the arguments of gradient checkpointing."""
    labelled: ClassVar[bool] = False
    """Whether a row's answer is judged by a `label`."""
    has_reference: ClassVar[bool] = False
    """Whether its loss compares the policy with a reference model."""

    # ---- light: recipes ----

    @property
    def config(self) -> str:
        """The name of TRL's configuration class."""
        return f"{self.trl}Config"

    def rules(self) -> tuple[Callable[[Given], Iterator[Problem]], ...]:
        """What options of this stage say about each other, beside the rules of every stage: each yields problems.

        A rule that reads an option which is wrong by itself ends there (`Unsettled`).
        """
        return ()

    def without_effect(self, given: Given, values: Mapping[str, Any]) -> Iterator[Problem]:
        """Keys of a right recipe that change nothing in this stage."""
        return iter(())

    def unread_data(self, data: Mapping[str, Any]) -> Iterator[Problem]:
        """Keys of the section `data` that mean nothing in this stage."""
        for part in () if self.labelled else ("train", "eval"):
            for number, source in enumerate(data.get(part) or ()):
                if isinstance(source, Mapping) and source.get("labels"):
                    yield f"data.{part}.{number}.labels", f"stage {self.name} reads no `label`; remove it"

    def packing(self, training: Mapping[str, Any], evaluation: bool = False) -> Packing | None:
        """How the rows to train on are packed, or those of the evaluation; None where they are not."""
        return None

    def order_seed(self, training: Mapping[str, Any]) -> int | None:
        """The seed of another order of the trainer's rows (TRL's `shuffle_dataset`); None keeps the mixture's."""
        return None

    def fewest_rows(self, training: Mapping[str, Any]) -> int:
        """The smallest micro-batch that it trains with."""
        return 1

    def computes_reference(self, arguments: TrainerArguments) -> bool:
        """Whether every step runs the reference too."""
        return self.has_reference and not arguments.precompute_ref_log_probs

    def forwards(self, arguments: TrainerArguments) -> Forwards:
        """The passes of a step that are forward alone."""
        return Forwards(reference=int(self.computes_reference(arguments)))

    def own_reference(self, lora: object | None, arguments: TrainerArguments) -> bool:
        """Whether the reference is a second model in memory. With adapters it is the policy with its adapters off."""
        return self.computes_reference(arguments) and lora is None

    def reference_settings(self, arguments: TrainerArguments) -> tuple[Any, ...]:
        """What the reference's log-probabilities depend on beside its weights and the rows."""
        return (arguments.max_length,)

    def guessing_loss(self, vocabulary: int) -> float | None:
        """The loss of a model that finds all tokens equally likely; None where the loss is no likelihood of tokens."""
        return None

    def why_padded(self, attn_implementation: str) -> str | None:
        """Why batches are padded though they could be laid end to end, shared prompts once; None where they are not."""
        return None

    def lays_end_to_end(self, attn_implementation: str) -> bool:
        """Whether a batch of prompts and answers is one row without padding, a prompt of several answers once."""
        return False

    # ---- light: rows ----

    @abstractmethod
    def features(self) -> dict[str, Any]:
        """Columns of converted rows, as `datasets` features: lists of messages, or a text."""

    @abstractmethod
    def columns(self) -> dict[str, Any]:
        """Columns of a trainer's rows, as `datasets` features. Token ids are in those whose names end with `_ids`."""

    @abstractmethod
    def convert(self, row: Any, format: str | None, reading: Reading) -> Sequence[dict[str, Any]]:
        """A row of a file -> what is learned from it, one example or several, each with the columns of `features`, and
        `form`, `unread` and `doubtful` (`data/formats.py`).

        Raises:
            RowError: the row is none that this stage learns from.
        """

    @abstractmethod
    def tokenize(
        self, examples: Sequence[dict[str, Any]], length: Length, tokenizer: PreTrainedTokenizerBase
    ) -> list[dict[str, Any]]:
        """Converted rows -> of each its `columns`, cut to length, and facts for the audit (`data/facts.py`)."""

    @abstractmethod
    def spans(self, row: Mapping[str, Any]) -> Iterator[tuple[str, list[int]]]:
        """A trainer's row in pieces: "seen", "learned", "chosen", "rejected", "good" or "bad", and the tokens."""

    def joins(self, training: Mapping[str, Any]) -> bool:
        """Whether a trainer's row takes something from others."""
        return False

    def join(self, rows: Dataset, **more: Any) -> Dataset:
        """A trainer's rows in their last order, each with what it takes from others.

        Args:
            more: for `Dataset.map`.
        Raises:
            UserError: there is no row to take it from.
        """
        raise NotImplementedError

    def tallies(self, rows: Dataset) -> dict[str, Tally]:
        """What the audit of this stage alone counts in rows that are trained on, by what it is called."""
        return {}

    def advice(self, tallies: Mapping[str, Tally], training: Mapping[str, Any]) -> Iterator[str]:
        """What a user should check because of the tallies of the mixture's rows."""
        return iter(())

    def unmeasured(self, tallies: Mapping[str, Tally], training: Mapping[str, Any]) -> dict[str, str]:
        """Metrics that an evaluation of rows with such tallies lacks, each with the reason."""
        return {}

    # ---- heavy: batches and losses ----

    def mixins(self) -> tuple[type, ...]:
        """What TRL's trainer of this stage needs beside what every stage adds to TRL's; they come just before it."""
        return ()

    @abstractmethod
    def fields(self, arguments: TrainerArguments) -> tuple[str, ...]:
        """What TRL's trainer reads of `training/scoring.py`'s `Scores`."""

    def collator(
        self, arguments: TrainerArguments, tokenizer: PreTrainedTokenizerBase, attn_implementation: str
    ) -> Any:
        """What makes a batch of rows; None takes TRL's own."""
        return None

    @abstractmethod
    def counts(self, batch: Mapping[str, Tensor]) -> dict[str, int]:
        """How much of each unit of `metrics` a batch has."""

    def rows_of(self, batch: Mapping[str, Tensor]) -> int:
        """How many sequences of a batch begin a row of the data: the first so many."""
        return len(batch["input_ids"])

    def split_loss(
        self, trainer: Any, loss: float, scores: Any, batch: Mapping[str, Tensor]
    ) -> dict[tuple[str, str], float]:
        """The loss of an evaluation batch by the units that its parts are means over, and what else is summed up."""
        return {("loss", self.metrics["loss"].unit): loss}

    def close(self, means: dict[str, float]) -> dict[str, float]:
        """The metrics of an evaluation or of a record of training, of the means over all of it."""
        return means

    @abstractmethod
    def scored_loss(self, log_probs: Tensor, reference: Tensor | None, arguments: TrainerArguments) -> Tensor:
        """The loss of a batch of which every target is a label, with TRL's default loss type.

        Args:
            log_probs: (B, S - 1) of the policy.
            reference: the same of the reference model, without gradient; None where there is none.
        """
