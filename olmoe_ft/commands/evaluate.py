"""`olmoe-ft evaluate`: put tasks to models, keep the results beside each, and show them side by side."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from olmoe_ft.checkpoints.folders import check_weights, load_config, resolve_checkpoint
from olmoe_ft.checkpoints.run_checkpoints import NAMED, read_object, step_of
from olmoe_ft.evaluation.wanted import ANSWERS, EngineName, Wanted, answers_of, of_recipe, wanted
from olmoe_ft.ranks import is_first
from olmoe_ft.reasons import is_out_of_memory, one_line
from olmoe_ft.recipe import UserError, load_recipe

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from olmoe_ft.evaluation.put import Loaded
    from olmoe_ft.evaluation.score import Evaluation

COMPARED = 50  # questions of each task that another engine and our own are compared on
OF_HUB = Path("evaluations")  # in the working folder, for models that are in no folder here


@dataclass(frozen=True)
class Place:
    """A model, and where its results go."""

    model: str
    checkpoint: str
    """The folder of the weights, or a Hub name."""
    folder: Path
    run: Path | None
    """The run directory, of a run's end or one of its checkpoints."""
    step: int | None
    wanted: Wanted


def evaluate_models(
    models: Sequence[str],
    tasks: Sequence[str],
    suite: str | None,
    to: Path | None = None,
    engine: str = "olmoe_ft",
    **how: Any,
) -> None:
    """Evaluate models one after the other, and print one table.

    Args:
        tasks: names or files, each with several behind commas; none takes those of each run's recipe.
        to: a folder for the results; None: beside each model.
        engine: "olmoe_ft" or "vllm".
        **how: attributes of `Wanted`; None is the default.
    Raises:
        UserError: a model or a task is wrong, or results cannot be written; said before any weight is read.
    """
    names = [name for text in tasks for name in text.split(",") if name]
    how = {name: value for name, value in how.items() if value is not None}
    places = [_place(model, names, suite, to, how) for model in models]
    engine_name = _engine(engine, places)
    _check_folders(places)
    from olmoe_ft.evaluation.evaluate import load_questions_for
    from olmoe_ft.evaluation.processes import start_processes
    from olmoe_ft.evaluation.table import print_side_by_side, print_suite

    start_processes()
    loaded = [load_questions_for(place.checkpoint, place.wanted) for place in places]
    evaluations = [_evaluate(place, *one, engine_name) for place, one in zip(places, loaded, strict=True)]
    if is_first():
        print_side_by_side(evaluations)
        if suite:
            print_suite(evaluations)
        _show_anew(places)


def _show_anew(places: Sequence[Place]) -> None:
    """The page and the card of each run that has them, with the new scores."""
    from olmoe_ft.data.terminal import say
    from olmoe_ft.report.written import NAME, write_all

    for run in dict.fromkeys(place.run for place in places if place.run is not None):
        if (run / NAME).exists():
            try:
                say("\n".join(write_all(run)))
            except (UserError, OSError) as error:  # the scores are kept and printed
                say(f"check: {run / NAME} could not be written again: {one_line(error)}")


def _evaluate(place: Place, loaded: "Loaded", tokenizer: "PreTrainedTokenizerBase", engine: EngineName) -> "Evaluation":
    from olmoe_ft.evaluation import files
    from olmoe_ft.evaluation.contamination import overlapping_questions
    from olmoe_ft.evaluation.evaluate import About, evaluate_checkpoint
    from olmoe_ft.evaluation.table import print_agreement, print_evaluation

    overlaps = overlapping_questions(place.run) if place.run else None
    about = About(place.model, "command", place.step, place.model, overlaps)
    try:
        if engine == "vllm":
            some = replace(loaded, wanted=replace(place.wanted, limit=min(COMPARED, place.wanted.limit or COMPARED)))
            own = evaluate_checkpoint(place.checkpoint, some, tokenizer, about)
        evaluation = evaluate_checkpoint(place.checkpoint, loaded, tokenizer, about, engine_name=engine)
    except Exception as error:
        if is_out_of_memory(error):
            raise UserError(
                f"{place.model}: the memory is not enough for {place.wanted.batch_size} questions at once; lower "
                "--batch-size"
            ) from error
        raise
    if engine == "vllm":
        print_agreement(own, evaluation)
    if is_first():
        files.add(place.folder, evaluation)
        print_evaluation(evaluation, place.folder, overlaps)
        _write_judged(place, loaded, evaluation)
    return evaluation


def _engine(name: str, places: Sequence[Place]) -> EngineName:
    """The engine of this name, once it is known that it can be used on the models."""
    engines: tuple[EngineName, ...] = get_args(EngineName)
    if (engine := next((one for one in engines if one == name), None)) is None:
        raise UserError(f"--engine: found {name}; allowed: {', '.join(engines)}; choose one of them")
    if engine == "vllm":
        from olmoe_ft.evaluation.vllm_engine import check_vllm

        for place in places:
            check_vllm(place.checkpoint)
    return engine


def _check_folders(places: Sequence[Place]) -> None:
    """Two models must not write into one folder. A run's own end and checkpoints may: their steps differ."""
    for number, place in enumerate(places):
        for other in places[:number]:
            if place.folder == other.folder and (place.run is None or place.step == other.step):
                raise UserError(
                    f"{other.model}, {place.model}: the results of both would be in {place.folder}; evaluate them one "
                    "after the other, with another --to for each"
                )


def _place(model: str, names: Sequence[str], suite: str | None, to: Path | None, how: dict[str, Any]) -> Place:
    """What can be wrong about a model, its tasks and the folder of its results."""
    check_weights(checkpoint := resolve_checkpoint(model))
    run, step = _run_of(Path(checkpoint))
    recipe = load_recipe(run / "recipe.yaml") if run is not None else None
    if names or suite:
        own = answers_of(recipe) if ANSWERS in names and recipe is not None else ()
        if ANSWERS in names and not own:
            raise UserError(
                f"{model}: found the task {ANSWERS}, which is the held-out prompts (data.answers) of a run's recipe; "
                "there are none here; name a file of rows with a prompt and an answer"
            )
        asked = wanted([name for name in names if name != ANSWERS], suite, own, **how)
    elif recipe is None or not (asked := of_recipe(recipe, **how)):
        raise UserError(
            f"{model}: found no --tasks and no --suite, and no recipe beside it that names any; give --tasks skills "
            "(`olmoe-ft evaluate --help` says what else), or --suite olmoe"
        )
    load_config(checkpoint)
    folder = run or (Path(checkpoint) if Path(checkpoint).is_dir() else OF_HUB / model.replace("/", "--"))
    if to is not None:
        folder = to / folder.resolve().name
    return Place(model, checkpoint, _writable(folder), run, step, asked)


def _run_of(checkpoint: Path) -> tuple[Path | None, int | None]:
    """The run whose end or checkpoint this is, and the step; not of a run's start."""
    run = checkpoint.parent if checkpoint.name == "final" else checkpoint.parent.parent
    if not (run / "recipe.yaml").exists():
        return None, None
    if checkpoint.name == "final":
        return run, (read_object(run / "summary.json") or {}).get("steps")
    if checkpoint.parent.name == "checkpoints" and NAMED.fullmatch(checkpoint.name):
        return run, step_of(checkpoint)
    return None, None


def _write_judged(place: Place, loaded: "Loaded", evaluation: "Evaluation") -> None:
    """The outputs that another model has to judge, in its project's format, and the command that does."""
    from olmoe_ft.data.terminal import say
    from olmoe_ft.evaluation.judged import judging_command, write_outputs

    for name, asked in loaded.judged.items():
        outputs = [sample.output for sample in evaluation.samples if sample.task == name]
        file = write_outputs(name, place.folder, asked, outputs, place.model)
        say(f"{name}: {len(outputs):,} outputs in {file}; have them judged with\n{judging_command(name, file)}")


def _writable(folder: Path) -> Path:
    from tempfile import TemporaryDirectory

    from olmoe_ft.training.files import existing

    try:
        with TemporaryDirectory(dir=existing(folder)):
            return folder
    except OSError as error:
        raise UserError(f"{folder} cannot be written ({error.strerror}); name another folder with --to") from None
