"""How many optimizer steps a stage takes, of how many tokens."""

import math
from dataclasses import dataclass

import numpy as np
from trl import DPOConfig, SFTConfig
from trl.data_utils import pack_dataset

from olmoe_ft.data.mixture import Mixture


@dataclass(frozen=True)
class Schedule:
    """Steps and tokens of a stage. Tokens are those of the rows, of a pair both sides with the prompt in each."""

    rows: int
    """Rows an epoch as a trainer takes them: conversations, pairs, or packs of conversations."""
    rows_per_pack: float
    """Conversations in a pack, on average; 1 where rows are not packed."""
    steps_per_epoch: int
    epochs: float
    steps: int
    tokens_per_step: float
    padding: float
    """Share of padding in a micro-batch, on average; of packs, the room that is left in them."""
    spared: float
    """Share of the tokens that are not computed, because the answers of a pair share their prompt."""

    @property
    def tokens(self) -> float:
        return self.steps * self.tokens_per_step


def schedule(mixture: Mixture, arguments: SFTConfig | DPOConfig, processes: int, shares_prompts: bool) -> Schedule:
    """The steps that transformers' `Trainer` takes.

    Args:
        processes: that each take their own micro-batches.
        shares_prompts: whether pairs are laid in one row, without padding.
    """
    batch = arguments.per_device_train_batch_size
    if getattr(arguments, "packing", False):
        packed = pack_dataset(mixture.rows, arguments.max_length, arguments.packing_strategy)
        lengths = np.array([[sum(row)] for row in packed["seq_lengths"]])
    else:
        lengths = mixture.lengths()  # (rows, 1), of pairs (rows, 2)
    rows = len(lengths)
    micro_batches = np.array_split(lengths, range(batch, rows, batch))
    tokens = float(lengths.sum())
    padded = tokens if shares_prompts else sum(part.size * part.max() for part in micro_batches)
    rounded = math.floor if arguments.dataloader_drop_last else math.ceil
    per_process = rounded(rounded(rows / batch) / processes)  # micro-batches an epoch
    per_epoch = max(1, math.ceil(per_process / arguments.gradient_accumulation_steps))
    steps = arguments.max_steps if arguments.max_steps > 0 else math.ceil(per_epoch * arguments.num_train_epochs)
    return Schedule(
        rows=rows,
        rows_per_pack=len(mixture.rows) / rows,
        steps_per_epoch=per_epoch,
        epochs=steps / per_epoch,
        steps=steps,
        tokens_per_step=tokens / per_epoch,
        padding=1 - tokens / padded,
        spared=1 - float(mixture.pair_lengths().sum()) / tokens if shares_prompts else 0.0,
    )
