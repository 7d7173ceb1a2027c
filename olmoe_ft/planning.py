"""What a recipe would train on and for how long, from its files alone."""

import math
from collections.abc import Mapping
from statistics import quantiles
from typing import Any

import torch
from datasets import Dataset
from rich.console import Console
from rich.table import Table
from transformers import PreTrainedTokenizerBase

from olmoe_ft.data.sources import load_mixture
from olmoe_ft.model import OlmoeConfig
from olmoe_ft.model.size import all_parameters, matrix_parameters_per_token
from olmoe_ft.recipe import Recipe, RecipeError
from olmoe_ft.training.start import model_config, stage_tokenizer

GIB = 2**30


def print_plan(recipe: Recipe) -> None:
    """A table of model, data and steps of one stage; the steps are those of one process.

    Raises:
        RecipeError: a file the recipe names is missing or wrong, as `train` would say.
    """
    if recipe.model.path is not None and recipe.model.path.startswith("runs/") and recipe.name.count("/"):
        Console().print(f"{recipe.name}: starts from {recipe.model.path}, which the stage before it writes")
        return
    config = model_config(recipe)
    tokenizer = stage_tokenizer(recipe, config)
    rows = load_mixture(recipe.data.train, recipe.stage, recipe.training.get("seed", 42))
    table = Table(title=f"{recipe.name} ({recipe.stage.upper()})", show_header=False)
    for name, value in [*_model_lines(config, recipe), *_data_lines(rows, tokenizer, recipe)]:
        table.add_row(name, value)
    Console().print(table)


def _model_lines(config: OlmoeConfig, recipe: Recipe) -> list[tuple[str, str]]:
    parameters = all_parameters(config)
    weight_bytes = parameters * getattr(torch, recipe.model.dtype).itemsize
    return [
        ("parameters", f"{parameters:,}"),
        ("of them multiplied with a token", f"{matrix_parameters_per_token(config):,}"),
        ("weights", f"{weight_bytes / GIB:.3f} GiB in {recipe.model.dtype}"),
    ]


def _data_lines(rows: Dataset, tokenizer: PreTrainedTokenizerBase, recipe: Recipe) -> list[tuple[str, str]]:
    lengths = [_length(row, tokenizer) for row in rows]
    cuts = quantiles(lengths, n=20, method="inclusive") if len(lengths) > 1 else lengths * 19
    limit = recipe.training.get("max_length", 1024)  # TRL's default
    steps = _steps(len(rows), recipe.training)
    return [
        ("rows", f"{len(rows):,}"),
        ("tokens a row", f"median {cuts[9]:.0f}, 95% below {cuts[18]:.0f}, longest {max(lengths)}"),
        ("rows longer than max_length", f"{sum(length > limit for length in lengths):,} (max_length {limit})"),
        ("tokens an epoch", f"{sum(min(length, limit) for length in lengths):,}"),
        ("optimizer steps on one process", steps),
    ]


def _length(row: dict[str, Any], tokenizer: PreTrainedTokenizerBase) -> int:
    """Tokens of a conversation, or of a pair's longer side."""
    if "messages" in row:
        return len(tokenizer.apply_chat_template(row["messages"], return_dict=True)["input_ids"])
    sides = (row["prompt"] + row[side] for side in ("chosen", "rejected"))
    return max(len(tokenizer.apply_chat_template(side, return_dict=True)["input_ids"]) for side in sides)


def _steps(rows: int, training: Mapping[str, Any]) -> str:
    if training.get("packing"):
        return "depends on how the rows pack"
    batch = training.get("per_device_train_batch_size", 8) * training.get("gradient_accumulation_steps", 1)
    if batch < 1:
        raise RecipeError(f"training.per_device_train_batch_size x gradient_accumulation_steps is {batch}: at least 1")
    epoch = math.ceil(rows / batch)
    if (maximum := training.get("max_steps", -1)) > 0:
        return f"{maximum:,} ({maximum / epoch:.1f} epochs of {epoch:,})"
    epochs = training.get("num_train_epochs", 3.0)
    return f"{math.ceil(epoch * epochs):,} ({epochs:g} epochs of {epoch:,})"
