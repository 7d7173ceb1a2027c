"""The rows that a stage trains on: each source is prepared, its share is drawn, and all are shuffled together."""

import hashlib
import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as compute
import xxhash
from datasets import Dataset, concatenate_datasets
from transformers import PreTrainedTokenizerBase

from olmoe_ft.data.benchmarks import load_benchmark
from olmoe_ft.data.cache import Cache
from olmoe_ft.data.facts import CUT, LOST, MALFORMED
from olmoe_ft.data.heldout import HeldOut, Prompt, place_of_answers
from olmoe_ft.data.length import Length
from olmoe_ft.data.prepare import Prepared, prepare
from olmoe_ft.data.sources import load_source
from olmoe_ft.data.words import asked, row_turns
from olmoe_ft.recipe import Recipe, UserError
from olmoe_ft.recipe.data_section import Data, Source
from olmoe_ft.stages import Stage


@dataclass(frozen=True)
class Mixture:
    """The sources with all their rows, and the rows that a trainer gets: only token columns, in the mixture's order."""

    sources: list[Prepared]
    rows: Dataset
    stage: Stage
    seed: int
    held_out: HeldOut
    """The prompts that were looked for in the sources."""
    cache: Cache
    training: Mapping[str, Any] = field(default_factory=dict)
    """The recipe's section, by which a stage judges what it learns from."""

    @property
    def key(self) -> list[Any]:
        """Everything that the rows and their order depend on; the key under which facts about them are cached."""
        return [self.seed, [[one.entry, one.source.weight, one.source.repeat] for one in self.sources]]

    def lengths(self) -> np.ndarray:
        """Tokens of every sequence of a row, (rows, sequences)."""
        return sequence_lengths(self.rows, self.stage)

    def fingerprints(self) -> dict[str, Any]:
        """Hashes of the training data for `run.json`: of content, so they are the same on every machine."""
        sources = [
            {
                "path": prepared.source.path,
                "rows": len(prepared.rows),
                "kept": len(prepared.kept),
                "fingerprint": hashlib.sha256(prepared.fact("row_hash").tobytes()).hexdigest()[:32],
            }
            for prepared in self.sources
        ]

        def make(folder: Path) -> None:
            (folder / "tokens.txt").write_text(tokens_hash(self.rows, self.rows.column_names))

        entry = self.cache.entry("hash", self.key, make)
        return {"rows": len(self.rows), "fingerprint": (entry / "tokens.txt").read_text(), "sources": sources}


def row_lengths(rows: Dataset, stage: Stage) -> np.ndarray:
    """Tokens that are learned from of each row of a trainer, (rows,), a prompt of several sequences counted once."""
    return tokens_in(rows, dict.fromkeys(chain(*stage.sequences)))


def tokens_in(rows: Dataset, columns: Iterable[str]) -> np.ndarray:
    """Tokens of each row in columns together, (rows,)."""
    return np.sum([_lengths(rows, column) for column in columns], axis=0)


def hashes(rows: Dataset, *columns: str) -> np.ndarray:
    """A number for the token ids of each row in columns, (rows,); the same for the same ids."""
    found: list[int] = []
    for block in rows.select_columns([*columns]).with_format("numpy").iter(batch_size=10_000):
        found.extend(hash_of(*parts) for parts in zip(*(block[column] for column in columns), strict=True))
    return np.array(found, np.int64)


def hash_of(*parts: Iterable[int]) -> int:
    """A number of 63 bits for lists of token ids; the same for the same lists."""
    digest = xxhash.xxh3_64()
    for part in parts:
        ids = np.asarray(part, np.int32)
        digest.update(f"{len(ids)} ".encode() + ids.tobytes())
    return digest.intdigest() >> 1  # fits a signed column


def sequence_lengths(rows: Dataset, stage: Stage) -> np.ndarray:
    """Tokens of every sequence that the network sees of a row, (rows, sequences)."""
    lengths = {column: _lengths(rows, column) for column in dict.fromkeys(chain(*stage.sequences))}
    return np.stack([np.sum([lengths[column] for column in parts], axis=0) for parts in stage.sequences], axis=1)


def _lengths(rows: Dataset, column: str) -> np.ndarray:
    blocks = rows.select_columns(column).with_format("arrow").iter(batch_size=10_000)
    return np.concatenate([compute.list_value_length(block[column]).to_numpy() for block in blocks])


def load_mixtures(
    recipe: Recipe, max_length: int | None, tokenizer: PreTrainedTokenizerBase, questions: Sequence[list[str]] = ()
) -> tuple[Mixture, Mixture | None]:
    """The training rows of a stage and, if the recipe has them, its evaluation rows.

    Args:
        max_length: the longest row in tokens, `training.max_length` or TRL's default.
        questions: those of `data.answers`, which should not appear in training either, each as its texts.
    Raises:
        UserError: a source is missing, unreadable or malformed, loses more rows than `data.max_dropped` allows, or has
            no row left.
    """
    data, seed = recipe.data, recipe.training.get("seed", 42)
    length = Length(max_length, data.max_prompt_length, data.long_prompts, data.long_answers)
    held_out = HeldOut(
        [
            *(Prompt(texts, place=place_of_answers(number)) for number, texts in enumerate(questions, 1)),
            *(prompt for source in data.eval for prompt in _asked(source, recipe.kind, data)),
            *(prompt for benchmark in data.decontaminate_against for prompt in load_benchmark(benchmark)),
        ]
    )

    def load(sources: Sequence[Source], held_out: HeldOut) -> Mixture:
        processes = recipe.training.get("dataset_num_proc")
        prepared = [prepare(source, recipe.kind, data, length, tokenizer, held_out, processes) for source in sources]
        for one in prepared:
            _check_lost(one, data)
        rows = mix(prepared, recipe.kind.columns(), seed)
        return Mixture(prepared, rows, recipe.kind, seed, held_out, Cache(data.cache), recipe.training)

    return load(data.train, held_out), load(data.eval, HeldOut()) if data.eval else None


def mix(sources: Sequence[Prepared], columns: Iterable[str], seed: int) -> Dataset:
    """Draw each source's share of its kept rows and shuffle them together; the same in every process and launch.

    Raises:
        UserError: a source has no row left.
    """
    drawn = [_drawn(source, seed + index).select_columns(list(columns)) for index, source in enumerate(sources)]
    return concatenate_datasets(drawn).shuffle(seed=seed, keep_in_memory=True)


def _drawn(prepared: Prepared, seed: int) -> Dataset:
    source, kept = prepared.source, prepared.kept
    count = round(source.weight * len(kept))
    if not count:
        if len(kept):
            why = f"weight {source.weight:g} draws none of {len(kept):,}"
            raise UserError(f"{source.path}: no row is left to train on ({why}); raise `weight`")
        reasons = ", ".join(f"{number:,} {reason}" for reason, number in prepared.dropped.items())
        first = prepared.first(max(prepared.dropped, key=lambda reason: prepared.dropped[reason]))
        why = f"all are dropped: {reasons}"
        raise UserError(f"{source.path}: no row is left to train on ({why}); correct them; the first is {first}")
    chosen = kept
    if count < len(kept):
        chosen = kept[sorted(random.Random(seed).sample(range(len(kept)), count))]
    return prepared.rows.select(np.tile(chosen, source.repeat), keep_in_memory=True)


def _asked(source: Source, stage: Stage, data: Data) -> list[Prompt]:
    """The prompt of each evaluation row of the file, which may have become several rows here."""
    rows, _ = load_source(source, stage, data)
    found = {row["place"]: asked(row_turns(row)) for row in rows if row["problem"] is None}
    return [Prompt(texts, place=source.path + place) for place, texts in found.items()]


def _check_lost(prepared: Prepared, data: Data) -> None:
    """Stop if too many rows have nothing to learn. Rows that the recipe asks to drop do not count.

    The rows are those of the file: of a pair that became two rows, what is lost counts as much as if it were malformed.
    """
    path, dropped = prepared.source.path, prepared.dropped
    if data.malformed == "stop" and MALFORMED in dropped:  # by the chat template
        raise UserError(f"{prepared.first(MALFORMED)}; correct the row, or set data.malformed to drop")
    reasons = {reason: prepared.places([reason]) for reason in LOST if reason in dropped}
    lost, read = prepared.places(list(reasons)), prepared.places()
    if lost <= data.max_dropped * read:
        return
    most = max(reasons, key=lambda reason: reasons[reason])
    named = ", ".join(f"{count:,} {reason}" for reason, count in reasons.items())
    remedy = "raise training.max_length, or cut prompts (data.long_prompts: keep_end, or data.max_prompt_length)"
    raise UserError(
        f"{path}: {lost:,} of {read:,} rows have nothing to learn ({named}); allowed: a share of "
        f"{data.max_dropped:g} (data.max_dropped); the first is {prepared.first(most)}; "
        f"{remedy if most == CUT else 'correct them'}, or raise data.max_dropped"
    )


def tokens_hash(dataset: Dataset, columns: Iterable[str]) -> str:
    """A hash of columns of token lists or of single values, row by row; it depends on nothing but these."""
    digest = hashlib.sha256()
    for batch in dataset.select_columns(list(columns)).with_format("arrow").iter(batch_size=1000):
        for column in columns:
            values = batch[column]
            if pa.types.is_list(values.type):
                digest.update(compute.list_value_length(values).to_numpy().tobytes())
                values = compute.list_flatten(values)
            digest.update(values.to_numpy().tobytes())
    return digest.hexdigest()[:32]
