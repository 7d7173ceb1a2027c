"""What is in the rows that a stage trains on: the numbers of each source, and the flaws in them."""

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as compute
from datasets import concatenate_datasets

from olmoe_ft.data.dropped import Problem, problems
from olmoe_ft.data.duplicates import copies
from olmoe_ft.data.heldout import HeldOut
from olmoe_ft.data.mixture import Mixture, sequence_lengths
from olmoe_ft.data.prepare import Prepared
from olmoe_ft.shipped import shipped_name
from olmoe_ft.stages import Tally

LISTED_ROWS = 10_000  # contaminated rows of a source that the report names
VERSION = 6  # of what an audit holds; raise it with every change, so that audits in the cache are made anew
BINS = 30  # of a histogram of lengths, at most
TAIL = 99  # percent of a source's rows; a histogram reaches to twice the longest of these


@dataclass(frozen=True)
class SourceAudit:
    """One source, `rows` after `max_rows`. Flaws are counted in rows that are trained on: a dropped one counts once."""

    path: str
    rows: int
    drawn: int
    """Rows that an epoch trains on, by `weight` and `repeat`."""
    forms: dict[str, int]
    """Number of rows by the format they were read as."""
    unread: dict[str, int]
    """Number of rows by key that was not read."""
    doubtful: dict[str, int]
    """The unread keys that may matter: they hold another text of the row, or true or false."""
    dropped: dict[str, int]
    """Rows that are not trained on, by reason."""
    problems: list[Problem]
    """What is wrong with the dropped rows."""
    turns: int
    """Turns of all readable rows; a pair counts its prompt and one more."""
    tokens: int
    """Tokens of all readable rows, before truncation; the prompt of a pair counts once."""
    tokens_p50: float
    """Length of a row, before truncation; for a pair, of its longer side."""
    tokens_p95: float
    tokens_max: int
    lengths: dict[str, list[int]]
    """A histogram of these lengths: `edges` from 0, the same for all sources, and `counts`, one fewer. A bin begins
    with its first edge and ends before its second; the last one also counts whatever is longer."""
    supervised_tokens: int
    """Tokens that the loss is computed on, after truncation; for a pair, those of both answers."""
    truncated_rows: int
    truncated_prompt_tokens: int
    truncated_answer_tokens: int
    beyond_positions: int
    """Rows that are longer than the network's positions, even after truncation."""
    without_eos: int
    """Rows with a learned answer that does not end with EOS, before truncation."""
    double_bos: int
    special_tokens: int
    """Rows that have EOS or another special token written in their text."""
    exact_copies: int
    """Rows that are the same, word for word, as an earlier row of the mixture's sources."""
    near_copies: int
    """Other rows with a Jaccard similarity of at least 0.8 to an earlier one (5-word shingles, MinHash estimate)."""
    same_answers: int
    """Pairs whose chosen and rejected answers are the same."""
    tallies: dict[str, Tally]
    """What the stage alone counts, by what it is called."""
    overlaps: dict[str, dict[str, int]]
    """For the held-out prompts and for each benchmark: the `rows` that contain one, how many of these are `kept`, and
    how many `prompts` were found in a row."""
    overlapping: list[dict[str, Any]]
    """The first LISTED_ROWS of these rows: `row`, `group`, `kept`, and the places of the `prompts`."""


@dataclass(frozen=True)
class Audit:
    """All sources of a stage's training rows."""

    sources: list[SourceAudit]
    groups: dict[str, int] = field(default_factory=dict)
    """The number of held-out prompts, and of questions of each benchmark."""
    positions: int | None = None
    """The network's number of positions, if known."""
    tallies: dict[str, Tally] = field(default_factory=dict)
    """What the stage alone counts in the mixture's rows."""

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def audit(mixture: Mixture, positions: int | None = None) -> Audit:
    """Count what `prepare` noted about every row; the rows themselves are not read again.

    Takes 150 bytes of memory per row, and the time to sort that. The second time it comes from the cache.

    Args:
        positions: the network's `max_position_embeddings`.
    """

    def make(folder: Path) -> None:
        (folder / "audit.json").write_text(json.dumps(_audit(mixture, positions).as_dict()), encoding="utf-8")

    # names that the audit shows, although the rows do not depend on them
    names = [[shipped_name(prepared.source.path) for prepared in mixture.sources], mixture.held_out.key_with_places]
    entry = mixture.cache.entry("audit", [VERSION, mixture.key, names, positions, LISTED_ROWS], make)
    return _from_dict(json.loads((entry / "audit.json").read_text(encoding="utf-8")))


def _from_dict(values: dict[str, Any]) -> Audit:
    for one in (values, *values["sources"]):
        one["tallies"] = {name: Tally(*numbers) for name, numbers in one["tallies"].items()}
        if "problems" in one:
            one["problems"] = [Problem(**problem) for problem in one["problems"]]
    sources = [SourceAudit(**source) for source in values["sources"]]
    return Audit(sources, values["groups"], values["positions"], values["tallies"])


def _audit(mixture: Mixture, positions: int | None) -> Audit:
    facts = [
        prepared.rows.select_columns(["row_hash", "signature"]).select(prepared.kept, keep_in_memory=True)
        for prepared in mixture.sources
    ]
    exact, near = copies(concatenate_datasets(facts))
    ends = np.cumsum([len(prepared.kept) for prepared in mixture.sources])[:-1]
    split = zip(mixture.sources, np.split(exact, ends), np.split(near, ends), strict=True)
    edges = _edges([_lengths(prepared) for prepared in mixture.sources])
    found = [_audit_source(*parts, mixture.held_out, positions, edges) for parts in split]
    return Audit(found, mixture.held_out.groups(), positions, mixture.stage.tallies(mixture.rows))


def _audit_source(
    prepared: Prepared,
    exact: np.ndarray,
    near: np.ndarray,
    held_out: HeldOut,
    positions: int | None,
    edges: list[int],
) -> SourceAudit:
    fact, source, kept = prepared.fact, prepared.source, prepared.kept
    lengths = _lengths(prepared)
    median, most = np.percentile(lengths, (50, 95)) if len(lengths) else (0.0, 0.0)
    prompt, answer = fact("cut_prompt")[kept], fact("cut_answer")[kept]
    trained = sequence_lengths(prepared.rows, prepared.stage).max(axis=1)
    overlapping = list(_overlapping(prepared, held_out))
    return SourceAudit(
        path=shipped_name(source.path),
        rows=len(prepared.rows),
        drawn=round(source.weight * len(kept)) * source.repeat,
        forms=_counted(prepared, "form"),
        unread=_counted(prepared, "unread"),
        doubtful=_counted(prepared, "doubtful"),
        dropped=prepared.dropped,
        problems=problems(prepared),
        turns=int(fact("turns").sum()),
        tokens=int(fact("tokens").sum(dtype=np.int64)),
        tokens_p50=float(median),
        tokens_p95=float(most),
        tokens_max=int(lengths.max(initial=0)),
        lengths={"edges": edges, "counts": _histogram(lengths, edges)},
        supervised_tokens=int(fact("supervised")[kept].sum(dtype=np.int64)),
        truncated_rows=int(np.count_nonzero(prompt + answer)),
        truncated_prompt_tokens=int(prompt.sum(dtype=np.int64)),
        truncated_answer_tokens=int(answer.sum(dtype=np.int64)),
        beyond_positions=int(np.count_nonzero(trained > positions)) if positions else 0,
        without_eos=int((~fact("ends_with_eos")[kept]).sum()),
        double_bos=int(fact("double_bos")[kept].sum()),
        special_tokens=int(fact("special_tokens")[kept].sum()),
        exact_copies=int(exact.sum()),
        near_copies=int(near.sum()),
        same_answers=int(fact("same_answers")[kept].sum()),
        tallies=prepared.stage.tallies(prepared.rows.select(kept, keep_in_memory=True)),
        overlaps=_overlaps(overlapping, held_out),
        overlapping=[
            {**row, "prompts": [held_out.prompts[index].place for index in row["prompts"]]}
            for row in overlapping[:LISTED_ROWS]
        ],
    )


def _lengths(prepared: Prepared) -> np.ndarray:
    """Tokens of each readable row, before truncation."""
    lengths = prepared.fact("length")
    return lengths[lengths > 0]


def _edges(lengths: Sequence[np.ndarray]) -> list[int]:
    """The edges of histograms of several sources: multiples of 1, 2 or 5 times a power of ten, from 0.

    They hold the longest row of all, or twice what is long in each source, if that is less: one book among short
    questions would leave these a single bin.
    """
    long = max((float(np.percentile(one, TAIL)) for one in lengths if len(one)), default=0.0)
    longest = max((int(one.max()) for one in lengths if len(one)), default=0)
    reach = min(longest, int(2 * long))
    widths = (factor * 10**power for power in range(10) for factor in (1, 2, 5))
    width = next(width for width in widths if reach // width < BINS)
    return [width * bin for bin in range(reach // width + 2)]


def _histogram(lengths: np.ndarray, edges: list[int]) -> list[int]:
    bins = np.minimum(lengths // edges[1], len(edges) - 2)
    return [int(number) for number in np.bincount(bins, minlength=len(edges) - 1)]


def _counted(prepared: Prepared, column: str) -> dict[str, int]:
    """How often each value appears in a column of texts or of lists of texts, the most frequent first."""
    values = prepared.rows.data.column(column)
    if column != "form":
        values = compute.list_flatten(values)
    counts = Counter({one["values"]: one["counts"] for one in compute.value_counts(values).to_pylist()})
    return {value: count for value, count in counts.most_common() if value is not None}


def _overlapping(prepared: Prepared, held_out: HeldOut) -> Iterator[dict[str, Any]]:
    """The rows that contain held-out prompts: one record for each row and group of prompts."""
    found = np.flatnonzero(compute.list_value_length(prepared.rows.data.column("held_out")).to_numpy())
    columns = prepared.rows.select_columns(["place", "held_out", "dropped"])
    for row in columns.select(found, keep_in_memory=True):
        by_group: dict[str, list[int]] = {}
        for index in row["held_out"]:
            by_group.setdefault(held_out.prompts[index].group, []).append(index)
        for group, prompts in by_group.items():
            yield {
                "row": prepared.source.path + row["place"],
                "group": group,
                "kept": not row["dropped"],
                "prompts": prompts,
            }


def _overlaps(overlapping: list[dict[str, Any]], held_out: HeldOut) -> dict[str, dict[str, int]]:
    overlaps = {}
    for group in held_out.groups():
        rows = [row for row in overlapping if row["group"] == group]
        overlaps[group] = {
            "rows": len(rows),
            "kept": sum(row["kept"] for row in rows),
            "prompts": len({index for row in rows for index in row["prompts"]}),
        }
    return overlaps
