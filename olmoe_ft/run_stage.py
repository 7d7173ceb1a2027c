"""The heavy phase of one stage: lock its run directory, write its base, score, train, score again, finish.

What it trains on has been read before (`olmoe_ft.inputs`).
"""

from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from accelerate import PartialState
from accelerate.utils import broadcast_object_list

from olmoe_ft.adapters.quantize import check_quantization
from olmoe_ft.checkpoints.pickles import refuse_code, without_code
from olmoe_ft.checkpoints.run_checkpoints import step_of
from olmoe_ft.data.audit_report import data_report, print_audit
from olmoe_ft.data.terminal import Console
from olmoe_ft.evaluation import files
from olmoe_ft.evaluation.of_run import BetweenSteps, RunEvaluations
from olmoe_ft.evaluation.score import Evaluation
from olmoe_ft.inputs import Finished, Inputs
from olmoe_ft.planning.of_launch import LaunchPlan, launched_machine
from olmoe_ft.planning.plan import Plan
from olmoe_ft.ranks import is_first
from olmoe_ft.recipe.changes import GO_ON, Restart
from olmoe_ft.recipe.precision import precision
from olmoe_ft.report.of_run import LaunchReport, PageCallback, page_of_finished
from olmoe_ft.stages import TrainerArguments
from olmoe_ft.summary import Summary, print_finished, print_summary
from olmoe_ft.training.arguments import training_arguments, whole_weights, zero_stage
from olmoe_ft.training.circumstances import circumstances, compare, engine, refuse_other_start
from olmoe_ft.training.hardware import hardware
from olmoe_ft.training.launch_guard import LaunchGuard
from olmoe_ft.training.launch_record import Launch
from olmoe_ft.training.lock import only_launch, refuse_second
from olmoe_ft.training.printed import print_aside, print_recovered, print_start
from olmoe_ft.training.recovery import Found, find, put_misplaced_aside, recover
from olmoe_ft.training.run_directory import RunDirectory
from olmoe_ft.training.space import check_space, space_of
from olmoe_ft.training.start import starting_checkpoint, write_base
from olmoe_ft.training.steps import Steps, count_steps
from olmoe_ft.training.tracking import TrackingCallback
from olmoe_ft.training.train import begin_records, train
from olmoe_ft.training.trainers import OlmoeTrainer, build_trainer


@dataclass(frozen=True)
class Session:
    """One launch of a stage, the same in every process."""

    inputs: Inputs
    run: RunDirectory
    arguments: TrainerArguments
    steps: Steps
    restart: Restart


@dataclass(frozen=True)
class Start:
    """Where a launch starts, the same in every process."""

    checkpoint: str
    """The weights that every process loads."""
    resume: Path | None
    """The checkpoint of this run to continue from; None where the run begins here."""
    stands_on: dict[str, Any]
    """The circumstances, as they are written into checkpoints."""
    accepted: dict[str, str]
    """What is another than before and was accepted by name."""


def run_stage(stage: Inputs | Finished, restart: Restart = GO_ON, aside: Path | None = None) -> Summary:
    """Train one stage into its run directory, continuing from its newest whole checkpoint where it has one.

    Args:
        stage: what the light phase has read or found.
        aside: a folder to be moved away before the run begins (`--fresh`).
    Returns:
        what is in `summary.json`; of a run that had finished before, its summary as it is.
    Raises:
        UserError: the arguments, the weights or the run directory are wrong.
        RunError: what ends a run whose recipe is right.
    """
    if isinstance(stage, Finished):
        return _finished_before(stage, restart)
    session = _session(stage, restart)
    state = PartialState()
    state.wait_for_everyone()  # all have looked at the run directory before one writes to it
    if aside is not None and state.is_main_process:
        for folder in (aside, *aside.glob("*/")):  # of a pipeline, those of its stages
            refuse_second(folder)
        print_aside(aside)
    run, guard, report = session.run, LaunchGuard(session.run), LaunchReport(session.run)
    lock = only_launch(run.path) if state.is_main_process else nullcontext()
    with lock, report.to_the_end(), guard.in_order():
        # from here on no other launch writes there; one may have finished the run while this one read its rows
        (summary,) = broadcast_object_list([_summary_now(run, restart)])
        if summary is not None:
            return _finished_before(Finished(session.inputs.recipe, summary), restart)
        return _train_and_finish(session, guard, report)


def _finished_before(stage: Finished, restart: Restart) -> Summary:
    summary, run = Summary.read(stage.summary), RunDirectory(stage.recipe)
    refuse_other_start(stage.recipe, summary.started_from, restart.accept)
    if is_first():
        print_finished(run, summary)
        page_of_finished(run)
    return summary


def _session(inputs: Inputs, restart: Restart) -> Session:
    """What can still be refused before anything is written. Starts the process group."""
    recipe, run = inputs.recipe, RunDirectory(inputs.recipe)
    run.check(restart)  # once more: of a pipeline, hours may have passed
    arguments = training_arguments(recipe, run)
    inputs = inputs.at_start()
    if recipe.model.quantization is not None:
        check_quantization()
    steps = count_steps(len(inputs.train_rows), arguments, PartialState().num_processes)
    return Session(inputs, run, arguments, steps, restart)


def _summary_now(run: RunDirectory, restart: Restart) -> dict[str, Any] | None:
    """Of a run that has finished meanwhile; the first process alone looks."""
    return run.finished() if PartialState().is_main_process and not restart.fresh else None


def _train_and_finish(session: Session, guard: LaunchGuard, report: LaunchReport) -> Summary:
    """All that is done under the lock: what lies in the run directory, the base, two scores and the training."""
    inputs, run = session.inputs, session.run
    found = _look_around(session, guard) if PartialState().is_main_process else Found(None, [])
    (resume,) = broadcast_object_list([found.resume])
    trusted = "code" in session.restart.accept
    if resume is not None and not trusted:
        refuse_code(resume)
    with whole_weights(session.arguments):
        start = _start(session, resume)
        evaluations = RunEvaluations(inputs.recipe, run, inputs.wanted, inputs.tokenizer)
        before = evaluations.evaluate(start.checkpoint, "before", 0)
    changed = run.changed()
    if PartialState().is_main_process:
        print_recovered(recover(run, found))
        files.forget_after(run.path, step_of(resume) if resume else 0)
        run.create()
    trainer = _trainer(session, start)
    report.step = lambda: trainer.state.global_step
    machine = hardware(PartialState().device)
    trainer.add_callback(guard)
    if evaluations.due["training"] and (every := inputs.recipe.evaluation.every_steps) is not None:
        trainer.add_callback(BetweenSteps(evaluations, trainer, every))
    with without_code(trusted):
        if PartialState().is_main_process:
            launch = _launch(session, trainer, start, changed, machine)
            tracking = begin_records(inputs.recipe, run, trainer, launch, start.stands_on)
            print_start(inputs.recipe, run, trainer, session.steps, resume)
            evaluations.keep(before, tracking, recorded=resume is not None)
            report.begin(_plan(session, guard))
            trainer.add_callback(PageCallback(run.path))
        trained = train(trainer, run, resume, evaluates=inputs.evaluation is not None)
    with whole_weights(session.arguments):
        after = evaluations.attempt(str(run.unfinished), "after", trained.steps)
    summary = Summary.of(inputs.recipe, start.stands_on["model"], trained, before, after)
    return _finish(run, trainer, summary, evaluations, after)


def _look_around(session: Session, guard: LaunchGuard) -> Found:
    """The disk, what an earlier launch has left, and the audit, before a weight is read. For the first process."""
    inputs, run, arguments = session.inputs, session.run, session.arguments
    processes = PartialState().num_processes
    guard.space = space_of(inputs.recipe, inputs.config, arguments, session.steps, zero_stage(arguments), processes)
    check_space(run, guard.space)
    run.mark_untrained()
    print_recovered(put_misplaced_aside(run))
    seen = (inputs.audit, inputs.train, inputs.tokenizer)
    print_audit(*seen, Console(), inputs.evaluation_audit)
    run.write_data_report(data_report(*seen, inputs.evaluation_audit))
    return find(run, arguments.load_best_model_at_end)


def _start(session: Session, resume: Path | None) -> Start:
    """Have the base written, and compare what this launch depends on with what the checkpoint did."""
    inputs, run, state = session.inputs, session.run, PartialState()
    recipe = inputs.recipe
    if state.is_main_process:
        write_base(recipe, run, inputs.config, inputs.tokenizer, begins=resume is None)
    state.wait_for_everyone()
    checkpoint = starting_checkpoint(recipe, run)
    stands_on = circumstances(
        recipe, session.arguments, inputs.fingerprints, inputs.tokenizer, checkpoint, state.num_processes
    )
    accepted = compare(resume, stands_on, session.steps, session.restart.accept) if resume is not None else {}
    return Start(checkpoint, resume, stands_on, accepted)


def _trainer(session: Session, start: Start) -> OlmoeTrainer:
    inputs, run = session.inputs, session.run
    return build_trainer(
        inputs.recipe,
        session.arguments,
        start.checkpoint,
        run.routing_probe,
        inputs.tokenizer,
        inputs.train_rows,
        inputs.evaluation_rows,
        inputs.train,
    )


def _plan(session: Session, guard: LaunchGuard) -> LaunchPlan:
    state, space = PartialState(), guard.space
    assert space is not None  # it was looked at before the base was written
    machine = launched_machine(session.arguments, state.num_processes, state.device)
    inputs = session.inputs
    plan = Plan(inputs.recipe, inputs.config, session.arguments, inputs, [], [])
    return LaunchPlan(plan, machine, session.steps, space.checkpoint)


def _launch(
    session: Session, trainer: OlmoeTrainer, start: Start, changed: list[str], machine: dict[str, Any]
) -> Launch:
    state = PartialState()
    return Launch(
        machine=machine,
        engine=engine(session.arguments),
        processes=state.num_processes,
        device=str(state.device),
        resumed_from=start.resume.name if start.resume else None,
        data=session.inputs.fingerprints,
        precision=precision(session.inputs.recipe, trainer.is_deepspeed_enabled)._asdict(),
        changed=changed,
        accepted=start.accepted,
    )


def _finish(
    run: RunDirectory,
    trainer: OlmoeTrainer,
    summary: Summary,
    evaluations: RunEvaluations,
    after: Evaluation | None,
) -> Summary:
    if (callback := trainer.pop_callback(TrackingCallback)) is not None:  # on rank 0 alone
        evaluations.keep(after, callback.tracking)
        run.finish(summary.as_dict())
        callback.tracking.finish(summary.as_dict())
        print_summary(run, summary)
    PartialState().wait_for_everyone()
    return summary
