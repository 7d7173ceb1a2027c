"""The training itself: the trainer's steps, and what becomes `final/`."""

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from accelerate import PartialState
from transformers.trainer_utils import TrainOutput

from olmoe_ft.checkpoints.manifest import CARD, write_manifest
from olmoe_ft.model.experts.gradient_memory import GRADIENTS
from olmoe_ft.recipe import Recipe
from olmoe_ft.training.adapter_checks import AdapterChecks
from olmoe_ft.training.callback_order import check_order
from olmoe_ft.training.finite import NotFinite
from olmoe_ft.training.launch_record import Launch
from olmoe_ft.training.progress import ProgressBar
from olmoe_ft.training.router.table import RoutingFiles, write_routing
from olmoe_ft.training.run_directory import RunDirectory
from olmoe_ft.training.stop import stops_at_steps
from olmoe_ft.training.tracking import Tracking, TrackingCallback
from olmoe_ft.training.trainers import OlmoeTrainer


@dataclass(frozen=True)
class Trained:
    """The figures of a training."""

    steps: int
    train_loss: float
    train_seconds: float
    last: dict[str, Any]
    """The last value of every metric of the task and of the routers that is one number for all layers."""
    evaluation: dict[str, float]
    """The figures of the evaluation rows at the end, by name."""


def train(trainer: OlmoeTrainer, run: RunDirectory, resume: Path | None, evaluates: bool) -> Trained:
    """Train, and save what becomes `final/`.

    Args:
        resume: the checkpoint to continue from; None begins at step 0.
        evaluates: whether there are evaluation rows to look at when it has trained.
    Raises:
        NotFinite: a number was not finite; what it was is in the records.
    """
    result = _steps(trainer, run, resume)
    evaluation = trainer.evaluate() if evaluates else {}
    state = PartialState()
    if state.is_main_process:
        (run.unfinished / "training_args.bin").unlink(missing_ok=True)  # a pickle nobody needs to load the model
        (run.unfinished / CARD).unlink(missing_ok=True)  # PEFT's: a form with nothing filled in but a local path
        write_routing(run)
        if (checks := trainer.pop_callback(AdapterChecks)) is not None:
            checks.note(run.unfinished)
        write_manifest(run.unfinished)
    state.wait_for_everyone()
    last = _last_values(trainer.state.log_history)
    seconds = result.metrics["train_runtime"]
    return Trained(trainer.state.global_step, result.training_loss, seconds, last, evaluation)


def begin_records(
    recipe: Recipe, run: RunDirectory, trainer: OlmoeTrainer, launch: Launch, stands_on: dict[str, Any]
) -> Tracking:
    """Have the trainer's records, pictures and checkpoints kept. For the first process alone.

    Args:
        stands_on: the circumstances, for checkpoints.
    Returns:
        where the records go.
    """
    trainer.stands_on = stands_on
    trainer.beside.append(run.copy_records)
    tracking = Tracking(recipe, run)
    trainer.add_callback(TrackingCallback(tracking))
    trainer.add_callback(RoutingFiles(run))
    if run.unfinished.exists():  # of a launch that was killed
        shutil.rmtree(run.unfinished)
    run.record_launch(launch)
    return tracking


def _steps(trainer: OlmoeTrainer, run: RunDirectory, resume: Path | None) -> TrainOutput:
    try:
        with stops_at_steps(trainer):
            check_order(trainer.callback_handler.callbacks)
            result = trainer.train(resume_from_checkpoint=str(resume) if resume else None)
        GRADIENTS.release()
        trainer.save_model(str(run.unfinished))
        return result
    except BaseException as error:
        trainer.pop_callback(ProgressBar).close()
        records = trainer.pop_callback(TrackingCallback)  # on rank 0 alone
        if isinstance(error, NotFinite) and records is not None:
            records.tracking.stop(error.step, error.values)
        raise


def _last_values(records: list[dict[str, Any]]) -> dict[str, Any]:
    values = {name: value for record in records for name, value in record.items()}
    return {
        name: value
        for name, value in values.items()
        if name == "loss/task" or (name.startswith("router/") and "/layer_" not in name)
    }
