"""Hints for rows that are nearly of a known format: the `columns:` line with which they can be read."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from olmoe_ft.data.rows import RowError, is_blank

# Names that datasets use for the two sides of a conversation, the usual ones first.
ASKED = tuple(
    "prompt question query problem instruction input user human request inputs inputs_pretokenized input_text source "
    "trajectory".split()
)
ANSWERED = tuple(
    "completion response solution generated_solution output answer assistant target targets targets_pretokenized "
    "output_text reply".split()
)
LISTS = ("conversation", "dialogue", "dialog", "turns", "chat")
BETTERS = "chosen preferred chosen_response response_chosen preferred_output accepted better win positive"
WORSES = "rejected dispreferred rejected_response response_rejected non_preferred_output declined worse lose negative"
WRAPPED = 4  # an object around rows may have this many keys

Names = dict[str, str]  # from a key of the row to the format's
Read = Callable[[Any], Any]


def with_columns(row: Mapping[str, Any], read: Read) -> str:
    """What to write below the source's `path` so that an SFT row can be read, as the end of a message; may be empty."""
    return _first_that_reads(row, _conversations(row), read)


def pair_columns(row: Mapping[str, Any], read: Read) -> str:
    """The same for a preference pair."""
    return _first_that_reads(row, _pairs(row), read)


def shape_hint(row: Mapping[str, Any]) -> str:
    """What to do with files of another layout: message trees, rows inside another object."""
    tree_keys = [key for key in ("parent_id", "replies", "message_tree_id") if key in row]
    if tree_keys:
        return (
            f". It looks like part of a message tree (`{tree_keys[0]}`): write each path from a first message to a "
            "last one as one row of `messages`"
        )
    lists = [key for key, value in row.items() if isinstance(value, list) and len(value) > 1 and _are_rows(value)]
    if len(lists) == 1 and len(row) <= WRAPPED:
        return f". It has a list in `{lists[0]}`: if that list has the rows, write them to a separate file"
    return ""


def _are_rows(values: list[Any]) -> bool:
    """Whether the items of a list may be rows rather than turns."""
    turns = {"role", "from", "speaker", "author", "value", "content"}
    return all(isinstance(value, Mapping) and not turns & value.keys() for value in values)


def _first_that_reads(row: Mapping[str, Any], candidates: Iterator[Names], read: Read) -> str:
    """The renaming with which the row can be read; otherwise the first one, if this row only lacks a text."""
    others = [names for names in candidates if any(old != new for old, new in names.items())]
    others = [names for names in others if not any(_displaces(row, names, new) for new in names.values())]
    for names in others:
        try:
            read({**row, **{new: row[old] for old, new in names.items()}})
        except RowError:
            continue
        return f". It can be read if you add   {_written(names)}   below the source's `path`"
    for names in others:
        if all(row[old] is None or isinstance(row[old], str) for old in names):
            return f". Rows with these keys can be read if you add   {_written(names)}   below the source's `path`"
    return ""


def _displaces(row: Mapping[str, Any], names: Names, new: str) -> bool:
    """Whether a renaming would replace another key."""
    return new not in names and not is_blank(row.get(new))


def _written(names: Names) -> str:
    return f"columns: {{{', '.join(f'{old}: {new}' for old, new in names.items() if old != new)}}}"


def _conversations(row: Mapping[str, Any]) -> Iterator[Names]:
    keys = _by_small_letters(row)
    for name in LISTS:
        if isinstance(row.get(keys.get(name, name)), list):
            yield {keys[name]: "messages"}
    if (instruction := keys.get("instruction")) is not None:  # Alpaca: the question may be in two keys
        rest = {keys[name]: "input" for name in ("context", "input") if name in keys}
        for context in [{key: new} for key, new in rest.items()] or [{}]:
            for answer in ANSWERED:
                if answer in keys:
                    yield {instruction: "instruction", **context, keys[answer]: "output"}
    for asked in ASKED:
        for answer in ANSWERED:
            if asked in keys and answer in keys and asked != answer:
                yield {keys[asked]: "prompt", keys[answer]: "completion"}


def _pairs(row: Mapping[str, Any]) -> Iterator[Names]:
    keys = _by_small_letters(row)
    for better, worse in zip(BETTERS.split(), WORSES.split(), strict=True):
        if better in keys and worse in keys:
            answers = {keys[better]: "chosen", keys[worse]: "rejected"}
            yield answers
            for asked in ASKED:
                if asked in keys:
                    yield {**answers, keys[asked]: "prompt"}


def _by_small_letters(row: Mapping[str, Any]) -> dict[str, str]:
    return {key.lower(): key for key in reversed(list(row)) if isinstance(key, str)}
