"""Rows that are not trained on: by reason, with what is wrong with them and where the first of them stand."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import pyarrow.compute as compute

from olmoe_ft.data.prepare import Prepared

PLACES = 3  # named for each kind of problem
KINDS = 20  # of problems for each source
VARYING = re.compile(r"""'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*"|\d[\d,]*""")  # quoted values and numbers


@dataclass(frozen=True)
class Problem:
    """Rows of a source that are dropped for the same reason and have the same thing wrong with them."""

    reason: str
    problem: str
    """What is wrong with the first of them."""
    rows: int
    places: list[str]
    """Where the first of them stand."""


def problems(prepared: Prepared) -> list[Problem]:
    """What is wrong with the dropped rows of a source, the most frequent first; beyond KINDS all are one."""
    dropped = prepared.rows.data.select(["dropped", "problem", "place"]).filter(
        compute.not_equal(prepared.rows.data.column("dropped"), "")
    )
    found: dict[tuple[str, str], Problem] = {}
    for row in _rows(dropped):
        reason, problem, place = row["dropped"], row["problem"] or row["dropped"], prepared.source.path + row["place"]
        kind = reason, VARYING.sub("…", problem)
        if kind not in found and len(found) >= KINDS:
            kind, problem = (reason, ""), "other problems"
        before = found.setdefault(kind, Problem(reason, problem, 0, []))
        places = [*before.places, place] if len(before.places) < PLACES else before.places
        found[kind] = Problem(reason, before.problem, before.rows + 1, places)
    return sorted(found.values(), key=lambda problem: -problem.rows)


def _rows(table: Any) -> Iterable[dict[str, str]]:
    for batch in table.to_batches(max_chunksize=10_000):
        yield from batch.to_pylist()
