"""A small recipe, and a trainer of one in this process, on one CPU process."""

from collections.abc import Callable

import pytest
import yaml
from support.training_cases import Case, recipe_of, write_start

from olmoe_ft.data.mixture import load_mixtures
from olmoe_ft.recipe import Recipe, load_recipe
from olmoe_ft.training.arguments import training_arguments
from olmoe_ft.training.model_files import ModelFiles
from olmoe_ft.training.packing import trainer_rows
from olmoe_ft.training.run_directory import RunDirectory
from olmoe_ft.training.trainers import OlmoeTrainer, build_trainer

RECIPE = """
name: here
stage: sft
model: {config: m.json, tokenizer: t}
router: {load_balancing_coef: 0.01, z_loss_coef: 0.001, train: full}
data: {train: [{path: rows.jsonl}]}
"""


@pytest.fixture
def recipe(tmp_path, monkeypatch) -> Callable[..., Recipe]:
    """`recipe("training.seed=3")`, in a folder of its own; none of the files it names is there."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    return lambda *overrides: load_recipe("recipe.yaml", overrides)


@pytest.fixture
def make_trainer(tmp_path, monkeypatch) -> Callable[..., OlmoeTrainer]:
    """`make_trainer(Case(...), "router.train=frozen")`: two steps of it are ready to be taken, none has been."""

    def make(case: Case, *overrides: str) -> OlmoeTrainer:
        write_start(tmp_path)
        file = tmp_path / "recipe.yaml"
        file.write_text(yaml.safe_dump(recipe_of(case, tmp_path)))
        usual = ("training.max_steps=2", "training.optim=adamw_torch", "training.learning_rate=1e-3")
        monkeypatch.chdir(tmp_path)  # its run directory is a relative path
        recipe = load_recipe(file, [*usual, *overrides])
        run = RunDirectory(recipe)
        run.create()
        arguments = training_arguments(recipe, run)
        tokenizer = ModelFiles(recipe).tokenizer
        train, evaluation = load_mixtures(recipe, arguments.max_length, tokenizer)
        return build_trainer(
            recipe,
            arguments,
            str(tmp_path / "start"),
            run.routing_probe.absolute(),
            tokenizer,
            trainer_rows(train, recipe),
            trainer_rows(evaluation, recipe, evaluation=True) if evaluation else None,
            train,
        )

    return make
