"""How many optimizer steps a run takes: one count, for the plan and for the run."""

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
        UserError: there is no step to take.
    """
    batch, accumulation = arguments.per_device_train_batch_size, arguments.gradient_accumulation_steps
    rounded = math.floor if arguments.dataloader_drop_last else math.ceil
    per_process = rounded(rounded(rows / batch) / processes)  # micro-batches an epoch
    if not per_process:
        raise UserError(
            f"training: no step can be taken: {rows:,} rows do not fill {processes} micro-batch(es) of {batch}, and "
            "dataloader_drop_last leaves out what is not filled; remove it, or lower per_device_train_batch_size"
        )
    per_epoch = math.ceil(per_process / accumulation)
    steps = arguments.max_steps if arguments.max_steps > 0 else math.ceil(per_epoch * arguments.num_train_epochs)
    places = per_process * processes * batch
    repeated = places - rows if processes > 1 else 0
    return Steps(per_epoch, steps, max(0, repeated), max(0, rows - places))


class StepsMixin(CarriedMixin):
    """A trainer whose steps are those counted above, also where it goes on from a checkpoint."""

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
        """With the rate that the schedule of this launch has there: a run that gets longer would take its next step
        with the last rate of the shorter one, which is 0 for most."""
        super()._load_optimizer_and_scheduler(checkpoint)
        schedule: Any = getattr(self.lr_scheduler, "scheduler", self.lr_scheduler)  # accelerate wraps it
        if checkpoint is not None and isinstance(schedule, LambdaLR):
            parts = zip(schedule.optimizer.param_groups, schedule.base_lrs, schedule.lr_lambdas, strict=True)
            for group, base, share in parts:
                group["lr"] = base * share(schedule.last_epoch)
            schedule._last_lr = [group["lr"] for group in schedule.optimizer.param_groups]
