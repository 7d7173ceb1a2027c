"""Tokenize a converted source: each row gets its token ids and the facts for the audit. Cached on disk."""

import os
from collections.abc import Sequence
from dataclasses import astuple, dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.compute as compute
from datasets import Dataset, Features
from transformers import PreTrainedTokenizerBase

from olmoe_ft.data.cache import Cache, entry_rows
from olmoe_ft.data.facts import FACTS, rows_with_facts
from olmoe_ft.data.heldout import HeldOut
from olmoe_ft.data.length import Length
from olmoe_ft.data.sources import load_source
from olmoe_ft.data.template import special_tokens
from olmoe_ft.data.terminal import printable
from olmoe_ft.recipe.data_section import Data, Source
from olmoe_ft.shipped import shipped_name
from olmoe_ft.stages import Stage

ROWS_A_PROCESS = 20_000  # half a minute of work; starting a process takes a second


@dataclass(frozen=True)
class Prepared:
    """A source with every row that was read."""

    source: Source
    stage: Stage
    rows: Dataset
    """The columns of the stage (empty if the row is dropped) and the columns of `FACTS`."""
    entry: str
    """The name of its cache entry, a hash of everything that it depends on."""

    @cached_property
    def kept(self) -> np.ndarray:
        """The positions of the rows to train on."""
        return np.flatnonzero(compute.equal(self.rows.data.column("dropped"), "").to_numpy())

    @cached_property
    def dropped(self) -> dict[str, int]:
        """How many rows are not trained on, by reason."""
        found = compute.value_counts(self.rows.data.column("dropped")).to_pylist()
        return {one["values"]: one["counts"] for one in sorted(found, key=lambda one: one["values"]) if one["values"]}

    def fact(self, name: str) -> np.ndarray:
        """A column of `FACTS`, (rows,)."""
        return self.rows.data.column(name).to_numpy()

    def places(self, reasons: Sequence[str] | None = None) -> int:
        """How many rows of the source were read, or had something dropped for one of these reasons.

        A row of the source may be several here, as a pair is where answers are judged one by one.
        """
        found = self.rows.data.column("place")
        if reasons is not None:
            of_these = compute.is_in(self.rows.data.column("dropped"), pyarrow.array(reasons, pyarrow.string()))
            found = found.filter(of_these)
        return compute.count_distinct(found).as_py()

    def first(self, reason: str) -> str:
        """Place and problem of the first row that was dropped for a reason."""
        row = self.rows[int(np.argmax(self.fact("dropped") == reason))]
        return f"{self.source.path}{row['place']}: {row['problem'] or reason}"


def prepare(
    source: Source,
    stage: Stage,
    data: Data,
    length: Length,
    tokenizer: PreTrainedTokenizerBase,
    held_out: HeldOut,
    processes: int | None = None,
) -> Prepared:
    """Read, convert, tokenize and cut one source, and note the facts about each row that the audit adds up.

    Args:
        data: the recipe's section, which says what to do with malformed and contaminated rows.
        held_out: the prompts that should not appear in the source.
        processes: how many tokenize in parallel. None: one for every ROWS_A_PROCESS rows, at most one per core.
    Raises:
        UserError: the source cannot be read, or a row is malformed and the recipe says to stop.
    """
    converted, read = load_source(source, stage, data)
    key = [
        read,
        astuple(length),
        tokenizer.backend_tokenizer.to_str(),
        tokenizer.chat_template,
        special_tokens(tokenizer),
        held_out.key,
        data.decontaminate,
    ]
    arguments = {"stage": stage, "length": length, "tokenizer": tokenizer, "held_out": held_out}

    def make(folder: Path) -> None:
        converted.map(
            rows_with_facts,
            batched=True,
            fn_kwargs={**arguments, "decontaminate": data.decontaminate},
            remove_columns=converted.column_names,
            features=Features(stage.columns() | FACTS),
            num_proc=processes or _processes(len(converted)),
            cache_file_name=str(folder / "tokens.arrow"),
            new_fingerprint=folder.name,
            desc=printable(f"Tokenizing {shipped_name(source.path)}"),
        )

    entry = Cache(data.cache).entry("tokens", key, make)
    return Prepared(source, stage, entry_rows(entry, "tokens"), entry.name)


def _processes(rows: int) -> int | None:
    processes = min(os.cpu_count() or 1, rows // ROWS_A_PROCESS)
    return processes if processes > 1 else None
