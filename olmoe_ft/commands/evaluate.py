"""`olmoe-ft evaluate`: put tasks to models, keep the results beside each, and show them side by side."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from olmoe_ft.checkpoints.folders import check_weights, load_config, resolve_checkpoint
from olmoe_ft.checkpoints.run_checkpoints import read_object
from olmoe_ft.evaluation.wanted import ANSWERS, EngineName, Wanted, answers_of, of_recipe, wanted
from olmoe_ft.ranks import is_first
from olmoe_ft.reasons import is_out_of_memory
from olmoe_ft.recipe import UserError, load_recipe

if TYPE_CHECKING:
    from olmoe_ft.evaluation.score import Evaluation

COMPARED = 50
OF_HUB = Path("evaluations")  # in the working folder, for models that are in no folder here


@dataclass(frozen=True)
class Place:
    """A model, and where its results go."""

    model: str
    folder: Path
    run: Path | None
    """The run directory, of a run."""
    wanted: Wanted

    @property
    def step(self) -> int | None:
        """The steps that the run has taken."""
        return (read_object(self.run / "summary.json") or {}).get("steps") if self.run else None


def evaluate_models(
    models: Sequence[str],
    tasks: Sequence[str],
    suite: str | None,
    to: Path | None = None,
    engine: EngineName = "olmoe_ft",
    **how: Any,
) -> None:
    """Evaluate models one after the other, and print one table.

    Args:
        tasks: names or files, each with several behind commas; none takes those of each run's recipe.
        to: a folder for the results; None: beside each model.
        engine: "olmoe_ft" or "vllm".
        **how: attributes of `Wanted`.
    Raises:
        UserError: a model or a task is wrong, or results cannot be written; said before any weight is read.
    """
    names = [name for text in tasks for name in text.split(",") if name]
    places = [_place(model, names, suite, to, how) for model in models]
    _check_engine(engine, places)
    from olmoe_ft.evaluation import files
    from olmoe_ft.evaluation.contamination import overlapping_questions
    from olmoe_ft.evaluation.evaluate import evaluate_checkpoint
    from olmoe_ft.evaluation.table import print_agreement, print_evaluation, print_side_by_side, print_suite

    evaluations = []
    for place in places:
        overlaps = overlapping_questions(place.run) if place.run else None
        about: dict[str, Any] = {"step": place.step, "label": place.model, "overlaps": overlaps}
        if engine == "vllm":
            own = evaluate_checkpoint(place.model, replace(place.wanted, limit=_compared(place.wanted)), **about)
        try:
            evaluation = evaluate_checkpoint(place.model, place.wanted, engine_name=engine, **about)
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
            _write_judged(place, evaluation)
        evaluations.append(evaluation)
    if is_first():
        print_side_by_side(evaluations)
        if suite:
            print_suite(evaluations)


def _check_engine(engine: EngineName, places: Sequence[Place]) -> None:
    if engine not in get_args(EngineName):
        allowed = ", ".join(get_args(EngineName))
        raise UserError(f"--engine: found {engine}; allowed: {allowed}; choose one of them")
    if engine == "vllm":
        from olmoe_ft.evaluation.vllm_engine import check_vllm

        for place in places:
            check_vllm(resolve_checkpoint(place.model))


def _compared(asked: Wanted) -> int:
    """Questions of each task that another engine and our own are compared on."""
    return min(COMPARED, asked.limit or COMPARED)


def _place(model: str, names: Sequence[str], suite: str | None, to: Path | None, how: dict[str, Any]) -> Place:
    """What can be wrong about a model, its tasks and the folder of its results."""
    check_weights(checkpoint := resolve_checkpoint(model))
    run = Path(checkpoint).parent if (Path(checkpoint).parent / "recipe.yaml").exists() else None
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
    return Place(model, _writable(folder), run, asked)


def _write_judged(place: Place, evaluation: "Evaluation") -> None:
    """The outputs that another model has to judge, in its project's format, and the command that does."""
    from olmoe_ft.data.terminal import say
    from olmoe_ft.evaluation.judged import judged_prompts, judging_command, write_outputs

    for name, prompts in place.wanted.judged:
        outputs = [sample.output for sample in evaluation.samples if sample.task == name]
        asked = judged_prompts(name, prompts, place.wanted.limit)
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
