"""How many optimizer steps a run takes: one count, for the plan and for the run."""

import math
from dataclasses import dataclass
from typing import Any

from transformers import Trainer, TrainingArguments

from olmoe_ft.recipe import RecipeError


@dataclass(frozen=True)
class Steps:
    """The optimizer steps of a run, and what becomes of rows that do not fill the last micro-batches of an epoch."""

    per_epoch: int
    steps: int
    repeated: int
    """Rows that are trained again in an epoch: several processes fill their last micro-batches from its front."""
    left_out: int
    """Rows that are not trained in an epoch, with `dataloader_drop_last`."""

    @property
    def epochs(self) -> float:
        return self.steps / self.per_epoch

    def uneven(self) -> str | None:
        """A sentence about rows that are repeated or left out; None where there are none."""
        if self.repeated:
            return (
                f"{self.repeated:,} rows are trained again in every epoch: rows from its front fill the last "
                "micro-batches of the processes"
            )
        if self.left_out:
            return f"{self.left_out:,} rows are left out of every epoch (training.dataloader_drop_last)"
        return None


def count_steps(rows: int, arguments: TrainingArguments, processes: int) -> Steps:
    """The steps that transformers' `Trainer` takes on accelerate's data loaders.

    Args:
        rows: of an epoch as the trainer takes them: conversations, packs or pairs.
        processes: that each take their own micro-batches.
    Raises:
        RecipeError: there is no step to take.
    """
    batch, accumulation = arguments.per_device_train_batch_size, arguments.gradient_accumulation_steps
    rounded = math.floor if arguments.dataloader_drop_last else math.ceil
    per_process = rounded(rounded(rows / batch) / processes)  # micro-batches an epoch
    if not per_process:
        raise RecipeError(
            f"training: no step can be taken: {rows:,} rows do not fill {processes} micro-batch(es) of {batch}, and "
            "dataloader_drop_last leaves out what is not filled; remove it, or lower per_device_train_batch_size"
        )
    per_epoch = math.ceil(per_process / accumulation)
    steps = arguments.max_steps if arguments.max_steps > 0 else math.ceil(per_epoch * arguments.num_train_epochs)
    places = per_process * processes * batch
    repeated = places - rows if processes > 1 else 0
    return Steps(per_epoch, steps, max(0, repeated), max(0, rows - places))


class StepsMixin(Trainer):
    """A trainer whose steps are those counted above."""

    def set_initial_training_values(self, args: TrainingArguments, dataloader: Any) -> Any:
        values = super().set_initial_training_values(args, dataloader)
        counted = count_steps(len(self.train_dataset), args, self.accelerator.num_processes)
        per_epoch, steps = values[1], values[-1]
        assert (per_epoch, steps) == (counted.per_epoch, counted.steps), f"{per_epoch}, {steps}, counted {counted}"
        return values
