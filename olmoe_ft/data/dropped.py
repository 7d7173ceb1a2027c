"""Rows that are not trained on, by reason: what is wrong with them, and the places of the first ones."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import pyarrow.compute as compute

from olmoe_ft.data.prepare import Prepared

PLACES = 3  # that are named for each kind of problem
KINDS = 20  # of problems that are kept apart in each source
VARYING = re.compile(r"""'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*"|\d[\d,]*""")  # quoted values and numbers


@dataclass(frozen=True)
class Problem:
    """Rows of a source that are dropped for the same reason, with the same problem."""

    reason: str
    problem: str
    """What is wrong with the first of these rows."""
    rows: int
    places: list[str]
    """Where the first of these rows are in the source; a pair there may be two rows here."""
    more: bool = False
    """Whether there are such rows in other places too."""


def problems(prepared: Prepared) -> list[Problem]:
    """What is wrong with the dropped rows of a source, the most frequent first; beyond KINDS the rest are joined."""
    dropped = prepared.rows.data.select(["dropped", "problem", "place"]).filter(
        compute.not_equal(prepared.rows.data.column("dropped"), "")
    )
    found: dict[tuple[str, str], Problem] = {}
    last: dict[tuple[str, str], str] = {}  # the place that was met last
    for row in _rows(dropped):
        reason, problem, place = row["dropped"], row["problem"] or row["dropped"], prepared.source.path + row["place"]
        kind = reason, VARYING.sub("…", problem)
        if kind not in found and len(found) >= KINDS:
            kind, problem = (reason, ""), "other problems"
        before = found.setdefault(kind, Problem(reason, problem, 0, []))
        places, more = before.places, before.more
        if place != last.get(kind):  # rows of one place follow each other
            places, more = ([*places, place], more) if len(places) < PLACES else (places, True)
        last[kind] = place
        found[kind] = Problem(reason, before.problem, before.rows + 1, places, more)
    return sorted(found.values(), key=lambda problem: -problem.rows)


def _rows(table: Any) -> Iterable[dict[str, str]]:
    for batch in table.to_batches(max_chunksize=10_000):
        yield from batch.to_pylist()
