"""The bytes of a checkpoint that ZeRO writes with two processes, beside real ones."""

import pytest
from support.launches import CONFIGS, SHORT, launch

from olmoe_ft.recipe import load_recipe
from olmoe_ft.training.arguments import training_arguments
from olmoe_ft.training.model_files import ModelFiles
from olmoe_ft.training.run_directory import RunDirectory
from olmoe_ft.training.space import space_of
from olmoe_ft.training.steps import Steps

LORA = ("lora={r: 4, alpha: 8, attention: true, experts: true}",)
SAVES = ("training.max_steps=2", "training.save_strategy=steps", "training.save_steps=2", "data.train.0.max_rows=64")


@pytest.mark.slow
@pytest.mark.parametrize(("shape", "stage"), [("zero2", 2), ("zero3", 3)])
@pytest.mark.parametrize("form", [(), LORA], ids=["full", "lora"])
def test_a_checkpoint_has_the_size_that_was_said(workspace, monkeypatch, shape, stage, form):
    name = f"space-{shape}-{'lora' if form else 'full'}"
    launch(workspace, CONFIGS[shape], "recipes/tiny/sft.yaml", *SHORT, *SAVES, *form, f"name={name}")
    monkeypatch.chdir(workspace)
    recipe = load_recipe(f"runs/{name}/recipe.yaml")
    run = RunDirectory(recipe)
    arguments = training_arguments(recipe, run)
    said = space_of(recipe, ModelFiles(recipe).config, arguments, Steps(100, 2, 0, 0), stage, processes=2)
    real = sum(file.stat().st_size for file in run.checkpoints.glob("checkpoint-2/**/*") if file.is_file())
    assert said.checkpoint == pytest.approx(real, rel=0.05)
