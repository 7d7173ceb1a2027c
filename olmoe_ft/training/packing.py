"""Rows as a trainer takes them, packed where the recipe packs: TRL's packing, done once and kept with the rows.

TRL would do it at every launch on a new machine, while the other processes wait in a collective.
"""

from pathlib import Path
from typing import Any

from datasets import Dataset

from olmoe_ft.data.cache import entry_rows
from olmoe_ft.data.mixture import Mixture
from olmoe_ft.recipe import Recipe
from olmoe_ft.recipe.training_fields import default_of


def trainer_rows(mixture: Mixture, recipe: Recipe, evaluation: bool = False) -> Dataset:
    """The rows of a mixture, packed where the recipe packs those that it trains or evaluates on."""
    assert recipe.stage != "pipeline"
    if recipe.stage != "sft":
        return mixture.rows

    def given(name: str) -> Any:
        return recipe.training.get(name, default_of("sft", name))

    packing = given("packing")
    if evaluation and given("eval_packing") is not None:
        packing = given("eval_packing")
    if not packing:
        return mixture.rows
    seed = recipe.training.get("seed", 42) if given("shuffle_dataset") else None
    settings = [given("max_length"), given("packing_strategy"), seed]

    def make(folder: Path) -> None:
        pack(mixture.rows, *settings, cache_file_name=str(folder / "packed.arrow"))

    return entry_rows(mixture.cache.entry("packed", [mixture.key, settings], make), "packed")


def pack(rows: Dataset, length: int, strategy: str, seed: int | None, **more: Any) -> Dataset:
    """Rows in packs of a length; with a seed (TRL's `shuffle_dataset`) in another order."""
    from trl import pack_dataset  # seconds, which a recipe that does not pack is spared

    rows = rows if seed is None else rows.shuffle(seed=seed, keep_in_memory=True)
    return pack_dataset(rows, length, strategy, {"desc": "Packing", **more})
