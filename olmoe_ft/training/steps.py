"""The number of optimizer steps of a run: the plan and the run use the same count."""

import math
from dataclasses import dataclass
from typing import Any

from torch.optim.lr_scheduler import LambdaLR
from transformers import TrainingArguments

from olmoe_ft.checkpoints.run_checkpoints import step_of
from olmoe_ft.recipe import UserError
from olmoe_ft.training.carried import CarriedMixin


@dataclass(frozen=True)
class Steps:
    """The optimizer steps of a run, and what happens to rows that do not fill the last micro-batches of an epoch."""

    per_epoch: int
    steps: int
    repeated: int
    """Rows that are used twice in an epoch: several processes fill their last micro-batches with its first rows."""
    left_out: int
    """Rows that are not used in an epoch, with `dataloader_drop_last`."""

    @property
    def epochs(self) -> float:
        return self.steps / self.per_epoch

    def uneven(self) -> str | None:
        """A sentence about rows that are repeated or left out; None if there are none."""
        if self.repeated:
            return (
                f"{self.repeated:,} rows are used twice in every epoch: its first rows fill the last "
                "micro-batches of the processes"
            )
        if self.left_out:
            return f"{self.left_out:,} rows are left out of every epoch (training.dataloader_drop_last)"
        return None


def count_steps(rows: int, arguments: TrainingArguments, processes: int) -> Steps:
    """The steps that transformers' `Trainer` takes on accelerate's data loaders.

    Args:
        rows: of an epoch, as the trainer gets them: conversations, packs, pairs or judged answers.
        processes: the number of processes, each with its own micro-batches.
    Raises:
        UserError: there are too few rows for one step.
    """
    batch, accumulation = arguments.per_device_train_batch_size, arguments.gradient_accumulation_steps
    rounded = math.floor if arguments.dataloader_drop_last else math.ceil
    per_process = rounded(rounded(rows / batch) / processes)  # micro-batches an epoch
    if not per_process:
        raise UserError(
            f"training: found {rows:,} rows, which do not fill {processes} micro-batch(es) of {batch}, and "
            "dataloader_drop_last leaves out what is not full; remove it, or lower per_device_train_batch_size"
        )
    per_epoch = math.ceil(per_process / accumulation)
    steps = arguments.max_steps if arguments.max_steps > 0 else math.ceil(per_epoch * arguments.num_train_epochs)
    places = per_process * processes * batch
    repeated = places - rows if processes > 1 else 0
    return Steps(per_epoch, steps, max(0, repeated), max(0, rows - places))


class StepsMixin(CarriedMixin):
    """A trainer that takes exactly the steps counted above, also when it continues from a checkpoint."""

    def set_initial_training_values(self, args: TrainingArguments, dataloader: Any) -> Any:
        values = super().set_initial_training_values(args, dataloader)
        counted = count_steps(len(self.train_dataset), args, self.accelerator.num_processes)
        per_epoch, steps = values[1], values[-1]
        assert (per_epoch, steps) == (counted.per_epoch, counted.steps), f"{per_epoch}, {steps}, counted {counted}"
        self.steps = counted
        if self.resume_from is not None and (done := step_of(self.resume_from)) >= steps:
            return done // per_epoch, *values[1:]  # no epoch is left: transformers would take one more step
        return values

    def _init_training_state(self, max_steps: int, *args: Any, **kwargs: Any) -> Any:
        places = super()._init_training_state(max_steps, *args, **kwargs)
        self.state.compute_steps(self.args, max_steps)  # the recipe's, not those of the checkpoint
        self.state.train_batch_size = self._train_batch_size
        return places

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        """Set the learning rate from this launch's schedule. Otherwise a lengthened run would take its next step with
        the last rate of the shorter one, which is usually 0."""
        super()._load_optimizer_and_scheduler(checkpoint)
        schedule: Any = getattr(self.lr_scheduler, "scheduler", self.lr_scheduler)  # accelerate wraps it
        if checkpoint is not None and isinstance(schedule, LambdaLR):
            parts = zip(schedule.optimizer.param_groups, schedule.base_lrs, schedule.lr_lambdas, strict=True)
            for group, base, share in parts:
                group["lr"] = base * share(schedule.last_epoch)
            schedule._last_lr = [group["lr"] for group in schedule.optimizer.param_groups]
