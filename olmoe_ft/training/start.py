"""The checkpoint a stage starts from: always a folder on disk (or a Hub name), the same for every process."""

import shutil
from pathlib import Path

import torch
from transformers import PreTrainedTokenizerBase

from olmoe_ft.adapters.merge import merge
from olmoe_ft.checkpoints.folders import is_adapter, resolve_checkpoint
from olmoe_ft.checkpoints.manifest import damage
from olmoe_ft.checkpoints.run_checkpoints import put_aside
from olmoe_ft.checkpoints.weights import save_whole
from olmoe_ft.model import OlmoeConfig, OlmoeForCausalLM
from olmoe_ft.recipe import Recipe
from olmoe_ft.training.printed import print_recovered
from olmoe_ft.training.run_directory import RunDirectory


def needs_base(recipe: Recipe) -> bool:
    """Whether no plain checkpoint has the starting weights: they are random, or an adapter has to be merged."""
    return recipe.model.path is None or is_adapter(resolve_checkpoint(recipe.model.path))


def starting_checkpoint(recipe: Recipe, run: RunDirectory) -> str:
    """Where every process loads the weights from."""
    if needs_base(recipe):
        return str(run.base.resolve())  # absolute: an adapter names its base, and is loaded from anywhere
    assert recipe.model.path is not None
    checkpoint = resolve_checkpoint(recipe.model.path)
    return str(Path(checkpoint).resolve()) if Path(checkpoint).exists() else checkpoint


def write_base(
    recipe: Recipe,
    run: RunDirectory,
    config: OlmoeConfig,
    tokenizer: PreTrainedTokenizerBase,
    begins: bool = True,
) -> None:
    """Write the starting weights to `base/`, once and by one process: so all machine shapes start from the same.

    Random weights are drawn with `training.seed`; an SFT adapter is merged into its base, so that the reference of
    the DPO or KTO that follows is the SFT model and not the model before it.

    Args:
        config: of random weights.
        begins: whether the run begins here, rather than continuing from a checkpoint. Then an adapter is merged again,
            since it may be another one by now.
    """
    if not needs_base(recipe):
        return
    if run.base.exists() or run.base.is_symlink():
        if (found := damage(run.base)) is not None:
            print_recovered([f"{run.base} is damaged ({found}), kept as {put_aside(run.base).name}, and written again"])
        elif recipe.model.path is None or not begins:
            return
        else:
            shutil.rmtree(run.base)
    if recipe.model.path is not None:
        merge(recipe.model.path, tokenizer, run.base, recipe.model.dtype)
        return
    torch.manual_seed(recipe.training.get("seed", 42))
    model = OlmoeForCausalLM(config).to(getattr(torch, recipe.model.dtype))
    save_whole(model, tokenizer, run.base)
