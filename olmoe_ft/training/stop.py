"""Stop a run on request: it is saved at the end of the step, on all ranks together."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from olmoe_ft.recipe import RunError
from olmoe_ft.stopping import Stopped, asked, at_steps, exit_code, name_of, only_note
from olmoe_ft.training.watch import lost_rank


@contextmanager
def stops_at_steps(trainer: Trainer) -> Iterator[None]:
    """Around `trainer.train`.

    Raises:
        Stopped: a rank was asked to stop, and the run is saved.
        SystemExit: a rank was asked after the last step, or when another rank had failed.
    """
    trainer.add_callback(
        StopCallback()
    )  # the last callback: it ends training, so no later one would hear about the checkpoint
    with at_steps():
        try:
            yield
        except RunError:
            raise
        except Exception as error:
            # the lost rank has said why; this one fails only because the other is missing
            if asked() and lost_rank() is not None:
                raise SystemExit(exit_code()) from error
            raise


class StopCallback(TrainerCallback):
    """Saves a checkpoint when any rank was asked to stop, and ends training when it is complete.

    transformers' own callback (`enable_jit_checkpoint`) saves on each rank by itself, and then closes the run as if it
    had finished.
    """

    def __init__(self) -> None:
        self.agreed = 0

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        only_note()

    def on_step_end(self, args: Any, state: Any, control: TrainerControl, **kwargs: Any) -> None:
        self.agreed = _any_rank(asked(), args)
        if self.agreed:  # `SavingMixin` first does what is due at the end of an epoch
            control.should_save = True

    def on_save(self, args: TrainingArguments, state: TrainerState, control: Any, **kwargs: Any) -> None:
        if self.agreed:
            checkpoint = Path(str(args.output_dir), f"checkpoint-{state.global_step}")
            raise Stopped(
                f"stopped by {name_of(self.agreed)} in step {state.global_step} of {state.max_steps}; {checkpoint} is "
                "complete; the same command continues from there"
            )


def _any_rank(code: int, args: TrainingArguments) -> int:
    """The request to any of the ranks; the same value on all of them."""
    if args.world_size == 1:
        return code
    together = torch.tensor([code], device=args.device)
    dist.all_reduce(together, dist.ReduceOp.MAX)
    return int(together.item())
