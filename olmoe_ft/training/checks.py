"""What can be wrong with a recipe's files, said before the trainers are imported.

torch and transformers are imported once every file has been found to be there.
"""

import os
from pathlib import Path

from olmoe_ft.checkpoints.folders import check_weights, resolve_checkpoint
from olmoe_ft.data.locations import read_rows
from olmoe_ft.data.sources import load_source
from olmoe_ft.evaluation.questions import load_questions
from olmoe_ft.recipe import Recipe
from olmoe_ft.recipe.changes import GO_ON, Restart
from olmoe_ft.recipe.mixed_precision import check_mixed_precision
from olmoe_ft.recipe.options.device import check_device, check_packages
from olmoe_ft.recipe.precision import check_optimizer, deepspeed_here
from olmoe_ft.training.builds import check_builds
from olmoe_ft.training.lock import refuse_second
from olmoe_ft.training.model_files import config_values, model_config, stage_tokenizer, with_start_of
from olmoe_ft.training.run_directory import RunDirectory
from olmoe_ft.training.wandb_mode import check_tracking


def check_files(recipe: Recipe, into_runs: bool = True, restart: Restart = GO_ON) -> None:
    """Everything that can be wrong with the files of a recipe and of every stage in it, the quickest checks first.

    Last, rows are read and tokenized, which are in the cache from then on, and weights are fetched from the Hub.

    Args:
        into_runs: whether it is to be trained into its run directories.
        restart: how it treats what is in them.
    Raises:
        UserError: a file is missing, unreadable or malformed, a run directory holds something else, or the optimizer
            would lose updates on this machine.
    """
    if into_runs:
        if (deepspeed := deepspeed_here()) and os.environ.get("LOCAL_RANK", "0") == "0":
            check_builds()
        mixed = os.environ.get("ACCELERATE_MIXED_PRECISION", "no")
        for stage in recipe.stages or (recipe,):
            check_optimizer(stage, deepspeed, "this launch (no DeepSpeed)")
            check_mixed_precision(stage, mixed, "accelerate's configuration of this launch")
            check_packages(stage)
    to_come: list[Recipe] = []  # stages that will have written their run directories
    on_hub: list[str] = []
    for stage in recipe.stages or (recipe,):
        starts_from_files = stage.model.path not in [str(earlier.run_dir) for earlier in to_come]
        sources = (*stage.data.train, *stage.data.eval)
        if into_runs:
            RunDirectory(stage).check(restart)
            if not restart.fresh and RunDirectory(stage).finished() is not None:
                continue  # it has finished: nothing will be read or tracked
            if os.environ.get("RANK", "0") == "0":  # the process that holds it
                refuse_second(stage.run_dir)
            if not RunDirectory(stage).begun():  # what has begun goes on without it
                check_tracking(stage)
        if stage.model.config is not None:
            config_values(stage.model.config)
        elif starts_from_files:
            assert stage.model.path is not None  # the schema asks for one of the two
            check_weights(start := resolve_checkpoint(stage.model.path))
            on_hub += [start] if into_runs and not Path(start).exists() else []
        for source in sources:
            next(read_rows(source.path, source.split, source.config, source.revision), None)
        if stage.data.answers:
            load_questions(stage.data.answers)
        if into_runs:
            _check_device(stage)
        started = with_start_of(stage, to_come)
        config = model_config(started)
        if starts_from_files and into_runs:
            RunDirectory(stage).check_space(config)
        stage_tokenizer(started, config)
        for source in sources:
            load_source(source, stage.kind, stage.data)
        from olmoe_ft.training.inputs import read_inputs

        read_inputs(started, config)
        to_come.append(stage)
    for name in on_hub:
        from olmoe_ft.checkpoints.base_model import local_folder

        check_weights(str(local_folder(name)))


def _check_device(recipe: Recipe) -> None:
    import torch  # whose import every stage needs from here on

    check_device(recipe, torch.accelerator.is_available(), "this machine")
