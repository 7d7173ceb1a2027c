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
    """The columns that one sequence of the network is made of, for each sequence of a row."""
    metrics: ClassVar[Mapping[str, Metric]]
    """Of its evaluation, without `eval_`."""
    options: ClassVar[Mapping[str, str]] = {}
    """Fields of TRL's configuration that not every stage has and this one obeys: what each does."""
    selective_checkpointing: ClassVar[bool] = False
    """Whether TRL's configuration takes `selective` among the arguments of gradient checkpointing."""
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
        return iter(())

    def packing(self, training: Mapping[str, Any], evaluation: bool = False) -> Packing | None:
        """How the rows to train on are packed, or those of the evaluation; None where they are not."""
        return None

    def order_seed(self, training: Mapping[str, Any]) -> int | None:
        """The seed of another order of the trainer's rows (TRL's `shuffle_dataset`); None keeps the mixture's."""
        return None

    def computes_reference(self, arguments: TrainerArguments) -> bool:
        """Whether every step runs the reference too."""
        return self.has_reference and not arguments.precompute_ref_log_probs

    def own_reference(self, lora: object | None, arguments: TrainerArguments) -> bool:
        """Whether the reference is a second model in memory. With adapters it is the policy with its adapters off."""
        return self.computes_reference(arguments) and lora is None

    def reference_settings(self, arguments: TrainerArguments) -> tuple[Any, ...]:
        """What the reference's log-probabilities depend on beside its weights and the rows."""
        return (arguments.max_length,)

    def guessing_loss(self, vocabulary: int) -> float | None:
        """The loss of a model that finds all tokens equally likely; None where the loss is no likelihood of tokens."""
        return None

    def why_not_shared(self, attn_implementation: str) -> str | None:
        """Why the sequences of a row each compute their prompt though they could share it; None where they do."""
        return None

    def shares_prompts(self, attn_implementation: str) -> bool:
        """Whether the sequences of a row are computed behind one copy of their prompt."""
        return len(self.sequences) > 1 and self.why_not_shared(attn_implementation) is None

    # ---- light: rows ----

    @abstractmethod
    def features(self) -> dict[str, Any]:
        """Columns of converted rows, as `datasets` features: lists of messages, or a text."""

    @abstractmethod
    def columns(self) -> dict[str, Any]:
        """Columns of a trainer's rows, as `datasets` features. Token ids are in those whose names end with `_ids`."""

    @abstractmethod
    def convert(self, row: Any, format: str | None, reading: Reading) -> dict[str, Any]:
        """A row of a file -> the columns of `features`, and `form`, `unread` and `doubtful` (`data/formats.py`).

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
        """A trainer's row in pieces: "seen", "learned", "chosen" or "rejected", and the tokens of each."""

    # ---- heavy: batches and losses ----

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
        """The metrics of an evaluation, of the means over all of it."""
        return means

    @abstractmethod
    def scored_loss(self, log_probs: Tensor, reference: Tensor | None, arguments: TrainerArguments) -> Tensor:
        """The loss of a batch of which every target is a label, with TRL's default loss type.

        Args:
            log_probs: (B, S - 1) of the policy.
            reference: the same of the reference model, without gradient; None where there is none.
        """
