"""The evaluations of a run: before its first step, between steps, and of its final weights.

Between steps the weights are written as they would be at the end and loaded again by every process, whole. So one way
serves full and LoRA training, one process and ZeRO-3; nothing of the network in training is touched, no process waits
for another within a generation, and what is scored is what a user would load.
"""

import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from accelerate import PartialState
from accelerate.utils import broadcast_object_list
from transformers import PreTrainedTokenizerBase, TrainerCallback

from olmoe_ft import stopping
from olmoe_ft.data.terminal import say
from olmoe_ft.evaluation import files
from olmoe_ft.evaluation.contamination import overlapping_questions
from olmoe_ft.evaluation.engine import Interrupted
from olmoe_ft.evaluation.evaluate import About, evaluate_checkpoint, random_state_kept
from olmoe_ft.evaluation.put import load
from olmoe_ft.evaluation.score import Evaluation, When
from olmoe_ft.evaluation.table import print_checks
from olmoe_ft.evaluation.wanted import Wanted
from olmoe_ft.recipe import Recipe, UserError
from olmoe_ft.training.arguments import whole_weights
from olmoe_ft.training.performance import PerformanceCallback
from olmoe_ft.training.run_directory import RunDirectory
from olmoe_ft.training.tracking import Tracking, TrackingCallback
from olmoe_ft.training.trainers import OlmoeTrainer

LABELS: dict[When, str] = {"before": "before training", "training": "between steps", "after": "after training"}


class RunEvaluations:
    """What is evaluated in a run, and where the results go. All questions are loaded when it is made, through the chat
    template that the run trains with.

    Args:
        wanted: the tasks.
        tokenizer: of the training.
    Raises:
        UserError: a task cannot be loaded.
    """

    def __init__(self, recipe: Recipe, run: RunDirectory, wanted: Wanted, tokenizer: PreTrainedTokenizerBase) -> None:
        self.recipe, self.run, self.tokenizer = recipe, run, tokenizer
        section = recipe.evaluation
        self.due: dict[When, bool] = {
            "before": bool(wanted) and section.before,
            "training": bool(wanted) and section.every_steps is not None,
            "after": bool(wanted) and section.after,
        }
        with random_state_kept():
            self.loaded = load(wanted, chat=True) if any(self.due.values()) else None

    def evaluate(self, checkpoint: str, when: When, step: int, stop: Callable[[], object] = int) -> Evaluation | None:
        """Evaluate a checkpoint, unless an earlier launch of the run has done so; the same in every process.

        Args:
            stop: whether this process has been asked to stop, so that it gives up.
        Returns:
            None where the recipe asks for nothing then.
        Raises:
            Interrupted: a process has been asked to stop.
            UserError: a task fails on an output.
        """
        if self.loaded is None or not self.due[when]:
            return None
        (known,) = broadcast_object_list([self._known(when, step) if PartialState().is_main_process else None])
        if known is not None:
            return known
        overlaps = overlapping_questions(trained) if (trained := self._trained(when)) is not None else None
        about = About(str(self.run.path), when, step, LABELS[when], overlaps)
        return evaluate_checkpoint(
            checkpoint, self.loaded, self.tokenizer, about, dtype=self.recipe.model.dtype, stop=stop
        )

    def attempt(self, checkpoint: str, when: When, step: int, stop: Callable[[], object] = int) -> Evaluation | None:
        """The same once steps are trained, which are worth more than a score: a failure is said, the run continues."""
        try:
            return self.evaluate(checkpoint, when, step, stop)
        except Interrupted:  # in every process
            reason = "the run is to stop"
        except UserError as error:
            reason = str(error)
        if PartialState().is_main_process:
            say(f"check: step {step} is not evaluated: {reason}")
        return None

    def _trained(self, when: When) -> Path | None:
        """The run whose rows the weights have learned: before training that of its start, if it is one."""
        path = self.recipe.model.path
        return self.run.path if when != "before" else Path(path) if path is not None and Path(path).exists() else None

    def _known(self, when: When, step: int) -> Evaluation | None:
        """What an earlier launch has kept, without samples; of a damaged file nothing, which `files.add` renames."""
        assert self.loaded is not None
        same = self.loaded.settings(self.tokenizer)
        kept: list[Evaluation] = []
        with suppress(UserError):
            kept = files.read_evaluations(self.run.path)
        for one in kept:
            if (one.when, one.step) == (when, step) and all(one.settings.get(key) == same[key] for key in same):
                return one
        return None

    def keep(self, evaluation: Evaluation | None, tracking: Tracking, recorded: bool = False) -> None:
        """Write the results and record them. For the first process.

        Args:
            tracking: of the run's records.
            recorded: whether the records of an earlier launch, which this one continues, have them.
        """
        if evaluation is None:
            return
        if evaluation.samples:  # it has not been read from there
            files.add(self.run.path, evaluation)
            if evaluation.when != "training":  # it would be said again and again
                print_checks(evaluation)
        if not recorded:
            tracking.record_evaluation(evaluation)


class BetweenSteps(TrainerCallback):
    """Evaluates when a step begins whose predecessors are a multiple of `evaluation.every_steps`: what that step has
    logged and saved is on disk by then."""

    def __init__(self, evaluations: RunEvaluations, trainer: OlmoeTrainer, every: int) -> None:
        self.evaluations, self.trainer, self.every = evaluations, trainer, every

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step and state.global_step % self.every == 0:
            self._evaluate(args, state.global_step)
            self._of(PerformanceCallback).leave_out_time()

    def _evaluate(self, args: Any, step: int) -> None:
        folder, state = self.evaluations.run.evaluated, PartialState()
        self.trainer.save_model(str(folder))
        state.wait_for_everyone()
        with whole_weights(args):
            evaluation = self.evaluations.attempt(str(folder), "training", step, stopping.asked)
        state.wait_for_everyone()
        if state.is_main_process:
            shutil.rmtree(folder)
            self.evaluations.keep(evaluation, self._of(TrackingCallback).tracking)

    def _of(self, kind: type[TrainerCallback]) -> Any:
        return next(one for one in self.trainer.callback_handler.callbacks if isinstance(one, kind))
