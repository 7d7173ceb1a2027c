"""Shared by all readers of rows: the error of a row, the settings for reading, and how messages show values."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

KEYS_SHOWN = 10
VALUE_SHOWN = 200  # characters


class RowError(ValueError):
    """A row does not fit its format; the message says what is missing or wrong."""


class Unreadable(NamedTuple):
    """Stands for a row: a line of a file that is not a row."""

    reason: str


@dataclass(frozen=True)
class Reading:
    """How rows are read, as the recipe says."""

    learn: Literal["all_answers", "last_answer", "completion"] = "all_answers"
    """Which assistant turns are learned."""
    obey_marks: bool = False
    """Whether marks on single turns (`train: false`) choose among these; otherwise such a mark is an error."""
    ignore: frozenset[str] = frozenset()
    """Keys of rows, turns and content parts that are never read."""
    labels: Mapping[str, bool] = field(default_factory=dict)
    """What a source's labels are called (by `label_name`) and whether each means good; empty for true, false, 1, 0."""


USUAL = Reading()


def is_blank(value: Any) -> bool:
    """Whether a value is empty: null, NaN, a text of white space, an empty list."""
    if isinstance(value, str):
        return not value.strip()
    return value is None or value != value or (isinstance(value, Mapping | list | tuple) and not value)


def says_nothing(value: Any) -> bool:
    """Whether an unread key is empty: blank, or the JSON text of an empty value, as in CSV files."""
    return is_blank(value) or value in ("[]", "{}", "null")


def texts_in(value: Any) -> list[str]:
    """All texts in a value that are not blank, at any depth."""
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, list | tuple):
        return [text for item in value for text in texts_in(item)]
    return [value] if isinstance(value, str) and value.strip() else []


def shown(value: Any) -> str:
    """A value as a message shows it: escaped, and at most VALUE_SHOWN characters."""
    if value is None:
        return "nothing"
    text = repr(value[:VALUE_SHOWN] if isinstance(value, str | bytes) else value)
    return text if len(text) <= VALUE_SHOWN else f"{text[: VALUE_SHOWN - 1]}…"


def key_name(key: Any) -> str:
    """A key as messages and counts show it: escaped, and not too long."""
    return key if isinstance(key, str) and key.isprintable() and len(key) <= VALUE_SHOWN else shown(key).strip("'")


def shown_keys(keys: Iterable[Any] | Mapping[Any, Any]) -> str:
    """The first KEYS_SHOWN keys; of a row, null ones are marked."""
    null = {key for key, value in keys.items() if value is None} if isinstance(keys, Mapping) else set()
    named = [key_name(key) + (" (null)" if key in null else "") for key in keys]
    more = f" and {len(named) - KEYS_SHOWN} more" if len(named) > KEYS_SHOWN else ""
    return ", ".join(named[:KEYS_SHOWN]) + more if named else "no keys"
