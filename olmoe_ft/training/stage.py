"""One stage of a recipe from its data to its summary."""

import os
import shutil
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from accelerate import PartialState
from accelerate.utils import broadcast_object_list

from olmoe_ft.adapters.quantize import check_quantization
from olmoe_ft.checkpoints.manifest import write_manifest
from olmoe_ft.checkpoints.pickles import refuse_code, without_code
from olmoe_ft.checkpoints.weights import load_whole
from olmoe_ft.data.audit_report import data_report, print_audit
from olmoe_ft.data.terminal import Console
from olmoe_ft.evaluation.answers import score
from olmoe_ft.model.experts.gradient_memory import GRADIENTS
from olmoe_ft.recipe import Recipe
from olmoe_ft.recipe.changes import GO_ON, Restart
from olmoe_ft.recipe.precision import precision
from olmoe_ft.training.adapter_checks import AdapterChecks
from olmoe_ft.training.arguments import training_arguments, whole_weights
from olmoe_ft.training.batch_rows import BatchRows
from olmoe_ft.training.circumstances import STARTED_FROM, circumstances, compare, refuse_other_start
from olmoe_ft.training.finite import NotFinite
from olmoe_ft.training.inputs import Inputs, read_inputs
from olmoe_ft.training.launch import Launch
from olmoe_ft.training.lock import only_launch, refuse_second
from olmoe_ft.training.model_files import model_config
from olmoe_ft.training.printed import print_aside, print_finished, print_recovered, print_start, print_summary
from olmoe_ft.training.progress import ProgressBar
from olmoe_ft.training.recovery import Found, find, put_misplaced_aside, recover
from olmoe_ft.training.router.pictures import RoutingFiles, write_routing
from olmoe_ft.training.run_directory import RunDirectory
from olmoe_ft.training.space import check_space, space_of, zero_stage
from olmoe_ft.training.start import starting_checkpoint, write_base
from olmoe_ft.training.steps import Steps, count_steps
from olmoe_ft.training.stop import stops_at_steps
from olmoe_ft.training.tracking import Tracking, TrackingCallback
from olmoe_ft.training.trainers import OlmoeTrainer, build_trainer


def run_stage(recipe: Recipe, restart: Restart = GO_ON, aside: Path | None = None) -> dict[str, Any]:
    """Train one SFT or DPO stage into its run directory, going on from its newest whole checkpoint where it has one.

    Everything that can be wrong with the recipe's files is found before anything is written.

    Args:
        aside: a folder to be moved away before the run begins (`--fresh`).
    Returns:
        what stands in `summary.json`; of a run that had finished before, its summary as it is.
    Raises:
        UserError: the recipe, its data, its model or the run directory is wrong.
    """
    run = RunDirectory(recipe)
    run.check(restart)
    if not restart.fresh and (summary := run.finished()) is not None:
        refuse_other_start(recipe, summary, restart.accept)
        if os.environ.get("RANK", "0") == "0":
            print_finished(run, summary)
        return summary
    arguments = training_arguments(recipe, run)
    config = model_config(recipe)
    inputs = read_inputs(recipe, config)
    if recipe.model.quantization is not None:
        check_quantization()
    state = PartialState()
    steps = count_steps(len(inputs.train_rows), arguments, state.num_processes)
    state.wait_for_everyone()  # all have looked at the run directory before one writes to it
    if aside is not None and state.is_main_process:
        for folder in (aside, *aside.glob("*/")):  # of a pipeline, those of its stages
            refuse_second(folder)
        print_aside(aside)
    launch = Launch(run)
    with only_launch(run.path) if state.is_main_process else nullcontext(), launch.in_order():
        # from here on no other launch writes there; one may have finished the run while this one read its rows
        (summary,) = broadcast_object_list([None if restart.fresh else run.finished()])
        if summary is not None:
            return summary
        found = Found(None, [])
        if state.is_main_process:
            launch.space = space_of(recipe, config, arguments, steps, zero_stage(arguments), state.num_processes)
            check_space(run, launch.space)
            run.mark_untrained()
            print_recovered(put_misplaced_aside(run))
            _look_at_data(run, inputs)
            found = find(run, arguments.load_best_model_at_end)
        (resume,) = broadcast_object_list([found.resume])
        trusted = "code" in restart.accept
        if resume is not None and not trusted:
            refuse_code(resume)
        with whole_weights(arguments):
            if state.is_main_process:
                write_base(recipe, run, inputs.tokenizer, begins=resume is None)
            state.wait_for_everyone()
            start = starting_checkpoint(recipe, run)
            stands_on = circumstances(recipe, arguments, inputs, start, state.num_processes)
            accepted = compare(resume, stands_on, steps, restart.accept) if resume is not None else {}
            before = _score(recipe, start, inputs, "before training")
        facts = {"changed": run.changed(), "accepted": accepted}
        if state.is_main_process:
            print_recovered(recover(run, found))
            run.create()
        trainer = build_trainer(
            recipe,
            arguments,
            start,
            run.routing_probe,
            inputs.tokenizer,
            inputs.train_rows,
            inputs.evaluation_rows,
            BatchRows(inputs.train),
        )
        trainer.add_callback(launch)
        with without_code(trusted):
            summary = _train(recipe, run, trainer, inputs, steps, resume, stands_on, facts)
        with whole_weights(arguments):
            after = _score(recipe, str(run.unfinished), inputs, "after training")
        if inputs.questions is not None:
            summary |= {"before": before, "after": after}
        return _finish(run, trainer, summary)


def _look_at_data(run: RunDirectory, inputs: Inputs) -> None:
    """The audit, before a weight is read."""
    seen = (inputs.audit, inputs.train, inputs.tokenizer)
    print_audit(*seen, Console(), inputs.evaluation_audit)
    run.write_data_report(data_report(*seen, inputs.evaluation_audit))


def _train(
    recipe: Recipe,
    run: RunDirectory,
    trainer: OlmoeTrainer,
    inputs: Inputs,
    steps: Steps,
    resume: Path | None,
    stands_on: dict[str, Any],
    facts: dict[str, Any],
) -> dict[str, Any]:
    """Train and save what becomes `final/`; returns the figures of the training itself.

    Args:
        stands_on: the circumstances, for checkpoints.
        facts: more for `run.json`.

    Raises:
        NotFinite: a number was not finite; what it was is in the records.
    """
    state = PartialState()
    if state.is_main_process:
        trainer.stands_on = stands_on
        trainer.beside.append(run.copy_records)
        trainer.add_callback(TrackingCallback(Tracking(recipe, run)))
        trainer.add_callback(RoutingFiles(run))
        if run.unfinished.exists():  # of a launch that was killed
            shutil.rmtree(run.unfinished)
        run.record_launch(
            processes=state.num_processes,
            device=str(state.device),
            resumed_from=resume.name if resume else None,
            data=inputs.fingerprints,
            precision=precision(recipe, trainer.is_deepspeed_enabled)._asdict(),
            **facts,
        )
        print_start(recipe, run, trainer, steps, resume)
    try:
        with stops_at_steps(trainer):
            result = trainer.train(resume_from_checkpoint=str(resume) if resume else None)
        GRADIENTS.release()
        trainer.save_model(str(run.unfinished))
    except BaseException as error:
        trainer.pop_callback(ProgressBar).close()
        records = trainer.pop_callback(TrackingCallback)  # on rank 0 alone
        if isinstance(error, NotFinite) and records is not None:
            records.tracking.stop(error.step, error.values)
        raise
    evaluation = trainer.evaluate() if inputs.evaluation is not None else {}
    if state.is_main_process:
        (run.unfinished / "training_args.bin").unlink(missing_ok=True)  # a pickle nobody needs to load the model
        write_routing(run)
        if (checks := trainer.pop_callback(AdapterChecks)) is not None:
            checks.note(run.unfinished)
        write_manifest(run.unfinished)
    state.wait_for_everyone()
    return {
        "name": recipe.name,
        "stage": recipe.stage,
        "steps": trainer.state.global_step,
        STARTED_FROM: stands_on["model"],
        "train_loss": result.training_loss,
        "train_seconds": result.metrics["train_runtime"],
        "last": _last_values(trainer.state.log_history),
        **evaluation,
    }


def _last_values(records: list[dict[str, Any]]) -> dict[str, Any]:
    """The last value of every metric of the task and of the routers that is one number for all layers."""
    values = {name: value for record in records for name, value in record.items()}
    return {
        name: value
        for name, value in values.items()
        if name == "loss/task" or (name.startswith("router/") and "/layer_" not in name)
    }


def _finish(run: RunDirectory, trainer: OlmoeTrainer, summary: dict[str, Any]) -> dict[str, Any]:
    if (callback := trainer.pop_callback(TrackingCallback)) is not None:  # on rank 0 alone
        run.finish(summary)
        callback.tracking.finish(summary)
        print_summary(run, summary)
    PartialState().wait_for_everyone()
    return summary


def _score(recipe: Recipe, checkpoint: str, inputs: Inputs, label: str) -> dict[str, Any] | None:
    """Generate from a checkpoint on disk, so that what is scored is what a user will load."""
    if inputs.questions is None:
        return None
    assert recipe.data.answers is not None
    model = load_whole(checkpoint, recipe.model.dtype).to(PartialState().device)
    return score(model, inputs.tokenizer, inputs.questions, recipe.data.answers, label)
