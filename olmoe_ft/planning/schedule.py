"""How many optimizer steps a stage takes, of how many tokens."""

from dataclasses import dataclass

import numpy as np
from trl.data_utils import pack_dataset

from olmoe_ft.data.mixture import Mixture, row_lengths
from olmoe_ft.stages import TrainerArguments
from olmoe_ft.training.by_length import StepsByLength
from olmoe_ft.training.steps import Steps, count_steps


@dataclass(frozen=True)
class Schedule:
    """Steps and tokens of a stage. Tokens are those of the rows, of a pair both sides with the prompt in each."""

    rows: int
    """Rows an epoch as a trainer takes them: conversations, pairs, judged answers, or packs of conversations."""
    rows_per_pack: float
    """Conversations in a pack, on average; 1 where rows are not packed."""
    count: Steps
    tokens_per_step: float
    computed: float
    """Tokens that a micro-batch computes, on average: padding included, a shared prompt once."""
    padding: float
    """Share of padding in a micro-batch, on average; of packs, the room that is left in them."""
    waiting: float
    """Share of the time in which a device waits for another with a longer micro-batch, if time goes with tokens."""
    spared: float
    """Share of the tokens that are not computed, because the answers of a pair share their prompt."""

    @property
    def tokens(self) -> float:
        return self.count.steps * self.tokens_per_step


def schedule(mixture: Mixture, arguments: TrainerArguments, processes: int, end_to_end: bool) -> Schedule:
    """The steps that transformers' `Trainer` takes.

    Args:
        processes: that each take their own micro-batches.
        end_to_end: whether prompts and answers are laid in one row, without padding, a shared prompt once.
    Raises:
        UserError: there is no step to take.
    """
    batch, accumulation = arguments.per_device_train_batch_size, arguments.gradient_accumulation_steps
    taken, packed = mixture.rows, bool(getattr(arguments, "packing", False))
    if packed:
        taken = pack_dataset(taken, arguments.max_length, arguments.packing_strategy)
    once = row_lengths(taken, mixture.stage)  # (rows,), a shared prompt once
    lengths = once[:, None] if packed else mixture.lengths()  # (rows, sequences)
    rows, tokens = len(lengths), float(lengths.sum())
    order = np.arange(rows)
    if arguments.train_sampling_strategy == "group_by_length":
        order = np.array([*StepsByLength(once.tolist(), batch * accumulation * processes, arguments.seed)])
    micro_batches = np.array_split(order, range(batch, rows, batch))
    places = np.array([once[one].sum() if end_to_end else _padded(lengths[one]) for one in micro_batches])
    count = count_steps(rows, arguments, processes)
    return Schedule(
        rows=rows,
        rows_per_pack=len(mixture.rows) / rows,
        count=count,
        tokens_per_step=tokens * (rows + count.repeated - count.left_out) / rows / count.per_epoch,
        computed=(tokens if packed else float(places.sum())) / len(micro_batches),  # packs are laid end to end
        padding=0.0 if end_to_end else 1 - tokens / float(places.sum()),
        waiting=_waiting(places, processes),
        spared=1 - float(once.sum()) / tokens if end_to_end else 0.0,
    )


def _padded(lengths: np.ndarray) -> int:
    return int(lengths.size * lengths.max())


def _waiting(places: np.ndarray, processes: int) -> float:
    """Processes take micro-batches in turn, and each waits for the largest of those taken at one time."""
    together = places[: len(places) // processes * processes].reshape(-1, processes)
    return 1 - float(together.mean() / together.max(axis=1).mean()) if len(together) else 0.0
