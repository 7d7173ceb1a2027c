"""Checkpoints are complete or not there: all processes write into a hidden folder, which is renamed at the end."""

import json
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from accelerate.utils import gather_object
from torch.serialization import get_crc32_options, set_crc32_options
from transformers.trainer import TRAINER_STATE_NAME, TRAINING_ARGS_NAME
from transformers.trainer_utils import SaveStrategy

from olmoe_ft.checkpoints.manifest import entries, files_of, write_manifest
from olmoe_ft.checkpoints.run_checkpoints import STOOD_ON, RunCheckpoints
from olmoe_ft.training.steps import StepsMixin


class _Held(NamedTuple):
    """What is postponed to the end of an epoch."""

    save: bool = False
    evaluate: bool = False


class SavingMixin(StepsMixin):
    """Must come before a TRL trainer among the bases.

    Attributes:
        stands_on: what a checkpoint depends on besides its weights, for `stood_on.json`; set in the first process.
        beside: functions that write more files into a checkpoint's folder before it is complete; in the first process.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.checkpoints = RunCheckpoints(Path(self.args.output_dir))
        self.limit, self.args.save_total_limit = self.args.save_total_limit, None  # transformers would count any folder
        self.stands_on: dict[str, Any] = {}
        self.beside: list[Callable[[Path], None]] = []
        self._writing = False
        self._came_at: int | None = None
        self._held = _Held()
        self._saved_at: int | None = None

    def _get_output_dir(self, trial: Any) -> str:
        return str(self.checkpoints.aside) if self._writing else super()._get_output_dir(trial)

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        step = self.state.global_step
        if self._saved_at == step:  # saved already at this step, and now called again at the epoch's end
            return
        self._saved_at = step
        with self._aside():
            super()._save_checkpoint(model, trial)
        folder = self.checkpoints.aside / self.checkpoints.of_step(step).name
        self.write_carried(folder)
        if self.is_world_process_zero():
            self._complete(folder)
        self.accelerator.wait_for_everyone()
        self._write_manifest(folder)
        if self.is_world_process_zero():
            self.checkpoints.name(step)
            self.checkpoints.keep(self.limit, self.state.best_global_step)
        self.accelerator.wait_for_everyone()

    def _init_training_state(self, *args: Any, **kwargs: Any) -> Any:
        places = super()._init_training_state(*args, **kwargs)
        if best := self.state.best_global_step:  # from its step, because the run may have been moved
            self.state.best_model_checkpoint = str(self.checkpoints.of_step(best))
        return places

    @contextmanager
    def _aside(self) -> Any:
        if self.is_world_process_zero():
            self.checkpoints.tidy()
        self.accelerator.wait_for_everyone()
        self._writing, crc32 = True, get_crc32_options()
        set_crc32_options(False)  # torch.load never checks it, and the manifest's checksum takes a third of its time
        try:
            yield
        finally:
            set_crc32_options(crc32)
            self._writing = False

    def _complete(self, folder: Path) -> None:
        if best := self.state.best_global_step:  # transformers has looked for it in the hidden folder
            self.state.best_model_checkpoint = str(self.checkpoints.of_step(best))
            self.state.save_to_json(str(folder / TRAINER_STATE_NAME))
        (folder / TRAINING_ARGS_NAME).unlink(missing_ok=True)  # a pickle that nobody needs
        (folder / STOOD_ON).write_text(json.dumps(self.stands_on, indent=1) + "\n", encoding="utf-8")
        for write in self.beside:
            write(folder)

    def _write_manifest(self, folder: Path) -> None:
        """All processes read a share of the files; the first one writes the manifest."""
        files = files_of(folder)[self.accelerator.process_index :: self.accelerator.num_processes]
        found = dict(gather_object(list(entries(folder, files).items())))
        if self.is_world_process_zero():
            write_manifest(folder, found)

    def _maybe_log_save_evaluate(self, *args: Any, **kwargs: Any) -> None:
        """Save a step that ends an epoch, or the run, after everything else that is done at an epoch's end, because a
        run that continues from there does not do that again. transformers calls this after each step, and once more
        when an epoch ends.

        With `save_strategy: best` the evaluation decides, so it is postponed too.
        """
        control, step = self.control, self.state.global_step
        at_epochs_end, self._came_at = self._came_at == step, step
        if at_epochs_end:
            control.should_save |= self._held.save
            control.should_evaluate |= self._held.evaluate
            self._held = _Held()
        elif step % self.steps.per_epoch == 0 or control.should_training_stop:
            by_best = self.args.save_strategy == SaveStrategy.BEST
            self._held = _Held(control.should_save, by_best and control.should_evaluate)
            control.should_save &= not self._held.save
            control.should_evaluate &= not self._held.evaluate
        super()._maybe_log_save_evaluate(*args, **kwargs)
