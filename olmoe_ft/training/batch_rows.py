"""From a batch back to the rows that are in it, for an error that names them."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from torch import Tensor

from olmoe_ft.data.mixture import Mixture, sequence_lengths
from olmoe_ft.data.prepare import Prepared
from olmoe_ft.stages import Stage

Ids = tuple[int, ...]


class BatchRows:
    """Finds rows by their tokens, so that it holds for every order, packing and collator; a row by its first sequence.

    Args:
        mixture: what the trainer's rows were drawn from.
    """

    def __init__(self, mixture: Mixture) -> None:
        self.mixture = mixture

    def __call__(self, batch: dict[str, Any]) -> list[str]:
        """`file.jsonl:12` of each row of a batch, in its order; the first one where rows have the same tokens."""
        sequences = list(_sequences(batch, self.mixture.stage))
        wanted = set(sequences)
        places: dict[Ids, str] = {}
        for prepared in self.mixture.sources:
            for ids, place in _found(prepared, wanted - places.keys()):
                places.setdefault(ids, place)
        return [places[ids] for ids in dict.fromkeys(sequences) if ids in places]


def _sequences(batch: dict[str, Any], stage: Stage) -> Iterator[Ids]:
    ids: Tensor = batch["input_ids"]
    if "attention_mask" not in batch:  # packed: one row, in which positions begin anew with every document
        starts = (batch["position_ids"].flatten() == 0).nonzero().flatten().tolist()
        for start, end in zip(starts, [*starts[1:], ids.numel()], strict=True):
            yield tuple(ids.flatten()[start:end].tolist())
        return
    for row, mask in zip(ids[: stage.rows_of(batch)], batch["attention_mask"], strict=False):
        yield tuple(row[mask.bool()].tolist())


def _found(prepared: Prepared, wanted: set[Ids]) -> Iterator[tuple[Ids, str]]:
    columns = list(prepared.stage.sequences[0])
    lengths = sequence_lengths(prepared.rows, prepared.stage)[:, 0]
    candidates = np.flatnonzero(np.isin(lengths, [len(ids) for ids in wanted]))
    for row in prepared.rows.select_columns([*columns, "place"]).select(candidates, keep_in_memory=True):
        ids = tuple(token for column in columns for token in row[column])
        if ids in wanted:
            yield ids, prepared.source.path + row["place"]
