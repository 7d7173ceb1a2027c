"""One launch of a run until its first step: what it leaves when it ends before, and what its errors say."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import wandb
from accelerate import PartialState
from transformers import TrainerCallback

from olmoe_ft.reasons import is_no_space, is_out_of_memory, is_refused_option, one_line, system_reason
from olmoe_ft.recipe import RunError, UserError
from olmoe_ft.stopping import done_at_a_stop, undisturbed
from olmoe_ft.training.run_directory import RunDirectory
from olmoe_ft.training.space import Space, why_not_saved
from olmoe_ft.training.tracking import abandon_tracking


class LaunchGuard(TrainerCallback):
    """Hears of the first step from the trainer: from then on the run directory stays, whatever ends the launch."""

    def __init__(self, run: RunDirectory) -> None:
        self.run = run
        self.stepped = False
        self.main = PartialState().is_main_process
        self.planned = run.data_report.exists() and not run.untrained.exists()
        self.new_parents = [folder for folder in run.path.parents if not folder.exists()]  # the innermost first
        self.undoing = threading.Lock()
        self.space: Space | None = None  # set once it is known

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self._is_gone():  # before a checkpoint is saved into a folder of that name which is not the run's
            raise self._gone()
        if not self.stepped:
            self.stepped = True
            if self.main:
                self.run.mark_trained()

    def _is_gone(self) -> bool:
        return self.main and self.stepped and not (self.run.path / "recipe.yaml").exists()

    def _gone(self) -> RunError:
        return RunError(
            f"{self.run.path} is not there any more: it was removed or moved while this launch trained; move it back, "
            "and the same command continues from its last checkpoint"
        )

    @contextmanager
    def in_order(self) -> Iterator[None]:
        """Wrap all that writes into the run directory: an error before the first step takes away what was made.

        Raises:
            UserError: what the user can change, before the first step.
            RunError: what a disk or a memory refused at any time.
        """
        with done_at_a_stop(self._undo):
            try:
                yield
            except BaseException as error:
                with undisturbed():
                    if self.main:
                        abandon_tracking()
                    self._undo()
                if (sentence := self._sentence(error)) is not None:
                    raise sentence from error
                raise

    def _undo(self) -> None:
        # where a folder cannot be removed, or holds another run by now, the mark in it lets the next launch start
        with self.undoing, suppress(OSError):
            if self.main and not self.run.begun():
                self.run.remove(keep_report=self.planned)
                for folder in self.new_parents:
                    folder.rmdir()

    def _sentence(self, error: BaseException) -> UserError | RunError | None:
        if isinstance(error, UserError | RunError):
            return None
        if self._is_gone():
            return self._gone()
        if is_out_of_memory(error):
            return RunError(self._out_of_memory(error))
        if self.space is not None and is_no_space(error, self.run.path):
            reason: str | None = why_not_saved(self.run, self.space, error)
        else:
            reason = system_reason(error, str(self.run.path))
        if reason is not None:
            return RunError(reason) if self.stepped else UserError(reason)
        if not self.stepped and isinstance(error, wandb.Error):
            return UserError(f"tracking: {one_line(error)}; `wandb: off` trains without W&B")
        if not self.stepped and is_refused_option(error):
            return UserError(f"training cannot start: {one_line(error)}")
        return None

    def _out_of_memory(self, error: BaseException) -> str:
        recipe = self.run.recipe
        batch = recipe.training.get("per_device_train_batch_size", 8)
        fewer = (
            f"lower training.per_device_train_batch_size (now {batch}) and raise training.gradient_accumulation_steps "
            "as much, "
        )
        return (
            f"out of memory ({one_line(error)}); {fewer if batch > recipe.kind.fewest_rows(recipe.training) else ''}"
            "lower training.max_length, or share the weights between more devices: `olmoe-ft plan` with this recipe "
            "says what fits"
        )
