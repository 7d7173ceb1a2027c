"""Rows as a trainer takes them: packed where the recipe packs, and joined where a row needs others. Done once and kept.

TRL would do it at every launch on a new machine, while the other processes wait in a collective.
"""

from pathlib import Path
from typing import Any

from datasets import Dataset

from olmoe_ft.data.cache import entry_rows
from olmoe_ft.data.mixture import Mixture
from olmoe_ft.recipe import Recipe, UserError
from olmoe_ft.stages import Packing


def trainer_rows(mixture: Mixture, recipe: Recipe, evaluation: bool = False) -> Dataset:
    """The rows of a mixture in their last order, packed where the recipe packs what it trains or evaluates on.

    Raises:
        UserError: a row lacks another one that it needs.
    """
    stage = recipe.kind
    packing, seed = stage.packing(recipe.training, evaluation), stage.order_seed(recipe.training)
    rows = mixture.rows
    if stage.joins(recipe.training):

        def join(folder: Path) -> None:
            try:
                stage.join(rows, cache_file_name=str(folder / "joined.arrow"))
            except UserError as error:
                raise UserError(f"data.{'eval' if evaluation else 'train'}: {error}") from None

        return entry_rows(mixture.cache.entry("joined", [stage.name, mixture.key], join), "joined")
    if packing is not None:

        def make(folder: Path) -> None:
            pack(_shuffled(rows, seed), packing, cache_file_name=str(folder / "packed.arrow"))

        packed = mixture.cache.entry("packed", [mixture.key, [*packing, seed]], make)
        return _shuffled(entry_rows(packed, "packed"), seed)
    return _shuffled(rows, seed)


def _shuffled(rows: Dataset, seed: int | None) -> Dataset:
    return rows if seed is None else rows.shuffle(seed=seed, keep_in_memory=True)


def pack(rows: Dataset, packing: Packing, **more: Any) -> Dataset:
    """Rows in packs of a length."""
    from trl import pack_dataset  # seconds, which a recipe that does not pack is spared

    assert packing.max_length is not None  # the recipe's rules ask for it
    return pack_dataset(rows, packing.max_length, packing.strategy, {"desc": "Packing", **more})
