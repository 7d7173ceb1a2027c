"""Rows that are nearly of a known form: the `columns:` line that reads them."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from olmoe_ft.data.rows import RowError

# What data sets call the two sides of a conversation, the usual names first.
ASKED = ("prompt", "question", "query", "problem", "instruction", "input", "user", "human", "request")
ANSWERED = ("completion", "answer", "response", "solution", "output", "assistant", "target", "reply")
LISTS = ("conversation", "dialogue", "dialog", "turns", "chat")
BETTER = ("chosen", "preferred", "chosen_response", "response_chosen", "accepted", "better", "win", "positive")
WORSE = ("rejected", "dispreferred", "rejected_response", "response_rejected", "declined", "worse", "lose", "negative")

WRAPPED = 4  # keys that an object around rows may have

Names = dict[str, str]  # from a key of the row to the format's
Read = Callable[[Any], Any]


def with_columns(row: Mapping[str, Any], read: Read) -> str:
    """What to write beside the source's `path` so that an SFT row can be read, as the end of a sentence; or nothing."""
    return _first_that_reads(row, _conversations(row), read)


def pair_columns(row: Mapping[str, Any], read: Read) -> str:
    """The same for a preference pair."""
    return _first_that_reads(row, _pairs(row), read)


def shape_hint(row: Mapping[str, Any]) -> str:
    """What to do with files that are laid out in another way: message trees, rows within another object."""
    lists = [
        key
        for key, value in row.items()
        if isinstance(value, list) and len(value) > 1 and isinstance(value[0], Mapping)
    ]
    if len(lists) == 1 and len(row) <= WRAPPED:
        return f". It holds a list in `{lists[0]}`: if these are the rows, write them as a file of their own"
    marks = [key for key in ("parent_id", "replies", "message_tree_id") if key in row]
    if not marks:
        return ""
    return (
        f". It looks like a part of a message tree (`{marks[0]}`): write each path from a first message to a last one "
        "as one row of `messages`"
    )


def _first_that_reads(row: Mapping[str, Any], candidates: Iterator[Names], read: Read) -> str:
    """The renaming after which the row is read; else the first, for this row may be an odd one of its file."""
    others = [names for names in candidates if any(old != new for old, new in names.items())]
    for names in others:
        kept = {key: value for key, value in row.items() if key not in names and key not in names.values()}
        try:
            read({**kept, **{new: row[old] for old, new in names.items()}})
        except RowError:
            continue
        return f". It can be read with   {_written(names)}   beside the source's `path`"
    return (
        f". Rows with these keys are read with   {_written(others[0])}   beside the source's `path`" if others else ""
    )


def _written(names: Names) -> str:
    return f"columns: {{{', '.join(f'{old}: {new}' for old, new in names.items() if old != new)}}}"


def _conversations(row: Mapping[str, Any]) -> Iterator[Names]:
    for key in LISTS:
        if isinstance(row.get(key), list):
            yield {key: "messages"}
    if "instruction" in row:  # Alpaca's, whose question may stand in two keys
        context = {key: "input" for key in ("input", "context") if key in row}
        for answer in ANSWERED:
            if answer in row:
                yield {"instruction": "instruction", **context, answer: "output"}
    for asked in ASKED:
        for answer in ANSWERED:
            if asked in row and answer in row and asked != answer:
                yield {asked: "prompt", answer: "completion"}


def _pairs(row: Mapping[str, Any]) -> Iterator[Names]:
    for better, worse in zip(BETTER, WORSE, strict=True):
        if better in row and worse in row:
            yield {better: "chosen", worse: "rejected"}
            for asked in ASKED:
                if asked in row:
                    yield {better: "chosen", worse: "rejected", asked: "prompt"}
