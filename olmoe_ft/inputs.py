"""The light phase of a recipe: all that is read before the trainers are imported, once, the quickest checks first.

    prepare_inputs   for each stage: run directory, weights' headers, first rows, held-out prompts, device, network,
                     disk, tokenizer, then every row, converted, audited and tokenized
    -> Inputs        what was read; training, planning and evaluation receive it and read none of it again

torch and transformers take seconds to import, so they are imported once every file has been found to be there. What is
imported here lies below `pipeline` and `planning`, and beside or above `evaluation` and `training`.
"""

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from olmoe_ft.checkpoints.folders import check_weights
from olmoe_ft.data.locations import read_rows
from olmoe_ft.data.sources import load_source
from olmoe_ft.evaluation.wanted import Wanted, of_recipe
from olmoe_ft.ranks import is_first, is_first_here
from olmoe_ft.recipe import Recipe, UserError
from olmoe_ft.recipe.changes import GO_ON, Restart
from olmoe_ft.recipe.mixed_precision import check_mixed_precision
from olmoe_ft.recipe.options.device import check_device, check_packages
from olmoe_ft.recipe.precision import check_optimizer, deepspeed_here
from olmoe_ft.recipe.training_fields import default_of
from olmoe_ft.training.builds import check_builds
from olmoe_ft.training.lock import refuse_second
from olmoe_ft.training.model_files import ModelFiles, with_start_of
from olmoe_ft.training.run_directory import RunDirectory
from olmoe_ft.training.wandb_mode import check_tracking

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase

    from olmoe_ft.data.audit import Audit
    from olmoe_ft.data.mixture import Mixture
    from olmoe_ft.model import OlmoeConfig


@dataclass(frozen=True)
class Finished:
    """A stage whose run had finished before this launch; nothing of it is read."""

    recipe: Recipe
    summary: dict[str, Any]
    """What is in its `summary.json`."""


@dataclass(frozen=True)
class Inputs:
    """What a stage needs before a weight is loaded."""

    recipe: Recipe
    known_start: Recipe
    """The recipe with files of a network that are there: where it continues from a run that is to come, those from
    which that run starts. Until then network and tokenizer are known from these."""
    config: "OlmoeConfig"
    tokenizer: "PreTrainedTokenizerBase"
    wanted: Wanted
    """What is to be evaluated."""
    train: "Mixture"
    evaluation: "Mixture | None"
    train_rows: "Dataset"
    """What the trainer takes of the mixture, packed where the recipe packs."""
    evaluation_rows: "Dataset | None"
    audit: "Audit"
    """What is in the training rows."""
    evaluation_audit: "Audit | None"
    fingerprints: dict[str, Any]
    """Hashes of the training rows, for `run.json`."""

    def at_start(self) -> "Inputs":
        """The same when the stage starts: network and tokenizer of the run that has finished by now.

        The rows stay, unless its tokenizer makes other tokens than the one that was known before.

        Raises:
            UserError: that run is not there, or its tokenizer cannot be used.
        """
        if self.known_start is self.recipe:
            return self
        from olmoe_ft.training.circumstances import tokenizer_hash

        files = ModelFiles(self.recipe)
        config, tokenizer = files.config, files.tokenizer
        if tokenizer_hash(tokenizer) != tokenizer_hash(self.tokenizer):
            return _read_all(self.recipe, self.recipe, config, tokenizer, self.wanted)
        return replace(self, known_start=self.recipe, config=config, tokenizer=tokenizer)


def prepare_inputs(recipe: Recipe, restart: Restart = GO_ON, into_runs: bool = True) -> list[Inputs | Finished]:
    """Check and read the files of a recipe, or of every stage of a pipeline, in order.

    Rows are in the cache from then on, and weights of the Hub have been fetched. In a launch every process calls this:
    the first one on each computer reads rows, and the others wait for it, outside of any collective.

    Args:
        restart: how a run directory that holds a run is treated.
        into_runs: whether the recipe is to be trained into its run directories; else they are not looked at, nor is
            this launch's machine, and no stage counts as finished.
    Raises:
        UserError: a file is missing, unreadable or malformed, a run directory holds something else, or the optimizer
            would lose updates on this machine.
    """
    if into_runs:
        _check_launch(recipe)
    stages: list[Inputs | Finished] = []
    to_come: list[Recipe] = []  # stages that will have written their run directories
    on_hub: list[str] = []
    for stage in recipe.runs:
        if into_runs and (summary := _check_run(stage, restart)) is not None:
            stages.append(Finished(stage, summary))
            continue
        known_start = with_start_of(stage, to_come)
        files = ModelFiles(known_start)
        if known_start is stage:
            files.check()
            if into_runs and files.start is not None and not Path(files.start).exists():
                on_hub.append(files.start)
        stages.append(_stage_inputs(stage, files, into_runs))
        if stage is not recipe.runs[-1] and (into_runs or RunDirectory(stage).finished() is None):
            to_come.append(stage)
    for name in on_hub:
        from olmoe_ft.checkpoints.base_model import local_folder

        check_weights(str(local_folder(name)))
    return stages


def _check_launch(recipe: Recipe) -> None:
    """What the launcher's configuration and the installed packages can say of a recipe."""
    if (deepspeed := deepspeed_here()) and is_first_here():
        check_builds()
    mixed = os.environ.get("ACCELERATE_MIXED_PRECISION", "no")
    for stage in recipe.runs:
        check_optimizer(stage, deepspeed, "this launch (no DeepSpeed)")
        check_mixed_precision(stage, mixed, "accelerate's configuration of this launch")
        check_packages(stage)


def _check_run(stage: Recipe, restart: Restart) -> dict[str, Any] | None:
    """Whether a stage may be trained into its run directory; its summary where it has finished."""
    run = RunDirectory(stage)
    run.check(restart)
    if not restart.fresh and (summary := run.finished()) is not None:
        return summary
    if is_first():  # the process that holds it
        refuse_second(stage.run_dir)
    if not run.begun():  # what has begun goes on without it
        check_tracking(stage)
    return None


def _stage_inputs(stage: Recipe, files: ModelFiles, into_runs: bool) -> Inputs:
    """The first row of each source and the held-out prompts, then what needs torch, the tokenizer and every row."""
    sources = (*stage.data.train, *stage.data.eval)
    for source in sources:
        next(read_rows(source.path, source.split, source.config, source.revision), None)
    wanted = of_recipe(stage)
    if into_runs:
        import torch  # whose import every stage needs from here on

        check_device(stage, torch.accelerator.is_available(), "this machine")
    config = files.config
    if into_runs and files.recipe is stage:
        RunDirectory(stage).check_writable(config)
    tokenizer = files.tokenizer
    for source in sources:  # a row that is malformed is found before any is tokenized
        load_source(source, stage.kind, stage.data)
    return _read_all(stage, files.recipe, config, tokenizer, wanted)


def read_stage(stage: Recipe, files: ModelFiles, config: "OlmoeConfig") -> Inputs:
    """The inputs of a stage without any check before them, for a plan of which not all can be reached.

    Raises:
        UserError: a file is missing, empty or malformed.
    """
    wanted = of_recipe(stage)
    return _read_all(stage, files.recipe, config, files.tokenizer_for(config), wanted)


def _read_all(
    recipe: Recipe,
    known_start: Recipe,
    config: "OlmoeConfig",
    tokenizer: "PreTrainedTokenizerBase",
    wanted: Wanted,
) -> Inputs:
    """Mixed, audited and packed rows; they come from the cache once they were read."""
    from olmoe_ft.data.audit import audit
    from olmoe_ft.data.mixture import load_mixtures
    from olmoe_ft.training.packing import trainer_rows

    prompts = [question.texts() for task in wanted.answers for question in task.questions]
    max_length = recipe.training.get("max_length", default_of(recipe.stage, "max_length"))
    train, evaluation = load_mixtures(recipe, max_length, tokenizer, prompts)
    positions = config.max_position_embeddings
    evaluation_audit = audit(evaluation, positions) if evaluation else None
    if evaluation_audit is not None:
        _check_best_metric(recipe, evaluation_audit)
    return Inputs(
        recipe=recipe,
        known_start=known_start,
        config=config,
        tokenizer=tokenizer,
        wanted=wanted,
        train=train,
        evaluation=evaluation,
        audit=audit(train, positions),
        evaluation_audit=evaluation_audit,
        train_rows=trainer_rows(train, recipe),
        evaluation_rows=trainer_rows(evaluation, recipe, evaluation=True) if evaluation else None,
        fingerprints=train.fingerprints(),
    )


def _check_best_metric(recipe: Recipe, audit: "Audit") -> None:
    """Refuse a metric that chooses the best checkpoint and that the evaluation's rows cannot give."""
    name = (recipe.training.get("metric_for_best_model") or "").removeprefix("eval_")
    lacking = recipe.kind.unmeasured(audit.tallies, recipe.training)
    if name in lacking:
        others = ", ".join(metric for metric in recipe.kind.metrics if metric not in lacking)
        raise UserError(
            f"training.metric_for_best_model: found {name}, but the evaluation has {lacking[name]}; give other rows in "
            f"data.eval, or another metric; allowed with these: {others}"
        )
