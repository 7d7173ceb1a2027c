"""Rows of about one length side by side: `training.train_sampling_strategy: group_by_length`.

transformers' own sampler of that name sorts fifty batches at a time, so that a step learns from rows of one length; it
does not know pairs, and a run that resumes in a later epoch takes other rows. Here a step keeps the rows that chance
gave it, and only their order within it follows their length: micro-batches need less padding, and the devices, which
take turns at them, wait less for one another.
"""

from collections.abc import Iterator, Sequence

import torch
from datasets import Dataset
from torch.utils.data import Sampler
from transformers import Trainer
from transformers.trainer_pt_utils import get_length_grouped_indices

from olmoe_ft.data.mixture import row_lengths
from olmoe_ft.stages import Stage


class StepsByLength(Sampler[int]):
    """All rows in random order, the rows of each optimizer step from the longest to the shortest.

    The longest row of all is the first, so that memory that does not suffice is missed at once.

    Args:
        lengths: tokens of each row.
        step: rows of a step, of all processes.
        seed: of the order, which changes with the epoch and is the same in every process.
    """

    def __init__(self, lengths: Sequence[int], step: int, seed: int) -> None:
        self.lengths, self.step, self.seed = lengths, step, seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.lengths)

    def __iter__(self) -> Iterator[int]:
        generator = torch.Generator().manual_seed(self.seed + self.epoch)
        return iter(get_length_grouped_indices(self.lengths, self.step, mega_batch_mult=1, generator=generator))


class StepsByLengthMixin(Trainer):
    """Gives a trainer the sampler above where its arguments ask for `group_by_length`."""

    stage: Stage

    def _get_train_sampler(self, train_dataset: Dataset | None = None) -> Sampler | None:
        arguments = self.args
        if arguments.train_sampling_strategy != "group_by_length":
            return super()._get_train_sampler(train_dataset)
        rows = self.train_dataset if train_dataset is None else train_dataset
        step = arguments.train_batch_size * arguments.gradient_accumulation_steps * arguments.world_size
        seed = arguments.seed if arguments.data_seed is None else arguments.data_seed
        return StepsByLength(row_lengths(rows, self.stage).tolist(), step, seed)
