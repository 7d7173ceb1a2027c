"""What a stage trains on: every source prepared, its share drawn, all of them shuffled into one."""

import hashlib
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow.compute as compute
from datasets import Dataset, concatenate_datasets
from transformers import PreTrainedTokenizerBase

from olmoe_ft.data.heldout import HeldOut
from olmoe_ft.data.prepare import MALFORMED, TOKEN_COLUMNS, UNSUPERVISED, Prepared, prepare
from olmoe_ft.data.sources import load_source
from olmoe_ft.data.tokens import Length
from olmoe_ft.data.words import asked, row_turns
from olmoe_ft.recipe import Recipe, RecipeError
from olmoe_ft.recipe.schema import Data, Source


@dataclass(frozen=True)
class Mixture:
    """The sources with all their rows, and the rows a trainer gets: token columns alone, in the mixture's order."""

    sources: list[Prepared]
    rows: Dataset

    def lengths(self) -> np.ndarray:
        """Tokens of each row, (rows, 1); of a pair those of both sides, prompt included, (rows, 2)."""
        if "chosen_ids" not in self.rows.column_names:
            return row_lengths(self.rows)[:, None]
        prompt, chosen, rejected = (_lengths(self.rows, column) for column in TOKEN_COLUMNS["dpo"])
        return np.stack([prompt + chosen, prompt + rejected], axis=1)

    def fingerprints(self) -> dict[str, Any]:
        """What was trained on, for `run.json`: hashes of content, the same on every machine."""
        sources = [
            {
                "path": prepared.source.path,
                "rows": len(prepared.rows),
                "kept": len(prepared.kept),
                "fingerprint": hashlib.sha256(prepared.fact("row_hash").tobytes()).hexdigest()[:32],
            }
            for prepared in self.sources
        ]
        tokens = tokens_hash(self.rows, self.rows.column_names)
        return {"rows": len(self.rows), "fingerprint": tokens, "sources": sources}


def row_lengths(rows: Dataset) -> np.ndarray:
    """Tokens of each row of a trainer, (rows,); of a pair with its prompt counted once."""
    columns = TOKEN_COLUMNS["dpo"] if "chosen_ids" in rows.column_names else ("input_ids",)
    return np.sum([_lengths(rows, column) for column in columns], axis=0)


def _lengths(rows: Dataset, column: str) -> np.ndarray:
    blocks = rows.select_columns(column).with_format("arrow").iter(batch_size=10_000)
    return np.concatenate([compute.list_value_length(block[column]).to_numpy() for block in blocks])


def load_mixtures(
    recipe: Recipe, max_length: int | None, tokenizer: PreTrainedTokenizerBase, questions: Sequence[list[str]] = ()
) -> tuple[Mixture, Mixture | None]:
    """The training rows of a stage and, where the recipe has them, its evaluation rows.

    Args:
        max_length: the longest row in tokens, `training.max_length` or TRL's default.
        questions: further held-out prompts that should not stand in training, each as its texts.
    Raises:
        RecipeError: a source is missing, unreadable or malformed, more of it is lost than `data.max_dropped` allows, or
            it leaves no row.
    """
    data, seed = recipe.data, recipe.training.get("seed", 42)
    length = Length(max_length, data.max_prompt_length, data.long_prompts, data.long_answers)
    prompts = [*questions, *(texts for source in data.eval for texts in _asked(source, recipe.stage, data.malformed))]

    def load(sources: Sequence[Source], held_out: HeldOut) -> Mixture:
        processes = recipe.training.get("dataset_num_proc")
        prepared = [prepare(source, recipe.stage, data, length, tokenizer, held_out, processes) for source in sources]
        for one in prepared:
            _check_lost(one, data)
        return Mixture(prepared, mix(prepared, TOKEN_COLUMNS[recipe.stage], seed))

    return load(data.train, HeldOut(prompts)), load(data.eval, HeldOut(())) if data.eval else None


def mix(sources: Sequence[Prepared], columns: Sequence[str], seed: int) -> Dataset:
    """Draw every source's share of its kept rows and shuffle them together; the same for every process and launch.

    Raises:
        RecipeError: a source gives no row.
    """
    drawn = [_drawn(source, seed + index).select_columns(list(columns)) for index, source in enumerate(sources)]
    return concatenate_datasets(drawn).shuffle(seed=seed)


def _drawn(prepared: Prepared, seed: int) -> Dataset:
    source, kept = prepared.source, prepared.kept
    count = round(source.weight * len(kept))
    if not count:
        reasons = ", ".join(f"{number:,} {reason}" for reason, number in prepared.dropped.items())
        why = f"weight {source.weight:g} draws none of {len(kept):,}" if len(kept) else f"all are dropped: {reasons}"
        mend = "raise `weight`" if len(kept) else "raise training.max_length, or look at the rows with `olmoe-ft plan`"
        raise RecipeError(f"{source.path}: no row is left to train on ({why}); {mend}")
    chosen = sorted(random.Random(seed).sample(range(len(kept)), count))
    return prepared.rows.select([*kept[chosen]] * source.repeat)


def _asked(source: Source, stage: str, malformed: str) -> list[list[str]]:
    """What is asked in each evaluation row."""
    return [asked(row_turns(row)) for row in load_source(source, stage, malformed)]


def _check_lost(prepared: Prepared, data: Data) -> None:
    """Rows that would teach nothing were meant to: too many of them stop the run. What a recipe asks to drop may go."""
    path, dropped = prepared.source.path, prepared.dropped
    if data.malformed == "stop" and MALFORMED in dropped:  # by the chat template
        raise RecipeError(f"{prepared.first(MALFORMED)}; mend the row, or set data.malformed to drop")
    lost = dropped.get(UNSUPERVISED, 0) + dropped.get(MALFORMED, 0)
    if lost > data.max_dropped * len(prepared.rows):
        first = prepared.first(UNSUPERVISED if UNSUPERVISED in dropped else MALFORMED)
        raise RecipeError(
            f"{path}: {lost:,} of {len(prepared.rows):,} rows would teach nothing, more than the share "
            f"{data.max_dropped:g} that data.max_dropped allows; the first is {first}"
        )


def tokens_hash(dataset: Dataset, columns: Sequence[str]) -> str:
    """A hash of columns of token lists, row by row, whatever made them."""
    digest = hashlib.sha256()
    for batch in dataset.select_columns(list(columns)).with_format("arrow").iter(batch_size=1000):
        for column in columns:
            digest.update(compute.list_value_length(batch[column]).to_numpy().tobytes())
            digest.update(compute.list_flatten(batch[column]).to_numpy().tobytes())
    return digest.hexdigest()[:32]
