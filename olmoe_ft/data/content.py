"""The text of a turn: a plain text, or a list of content parts."""

from collections.abc import Mapping
from typing import Any

from olmoe_ft.data.rows import USUAL, Reading, RowError, is_empty, leave_out, refuse_parts, shown

PART_TYPES = (None, "text", "input_text", "output_text")
PART_TEXTS = ("text", "value", "input_text", "output_text", "content")  # where a part may hold its text


def text(value: Any, where: str, reading: Reading = USUAL) -> str:
    """A text with something in it, as it stands.

    Raises:
        RowError: it is none, is blank, or holds half a character.
    """
    if isinstance(value, Mapping):
        value = [value]
    if isinstance(value, list) and value and all(isinstance(part, Mapping) for part in value):
        value = "".join(_part(part, where, reading) for part in value)
    if not isinstance(value, str) or not value.strip():
        raise RowError(f"{where} must be a text that is not empty, found {shown(value)}")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise RowError(f"{where} holds half of a character pair (a lone surrogate), which is no text") from None
    return value


def refuse_marks(keys: Mapping[str, Any], where: str) -> None:
    """Refuse keys that nobody knows and whose value is a number, true or false.

    There are too many words for "do not learn this" to know them all.

    Raises:
        RowError: one is there.
    """
    marks = [key for key, value in keys.items() if isinstance(value, bool | int | float)]
    if marks:
        named = ", ".join(f"`{key}`: {shown(keys[key])}" for key in marks)
        raise RowError(f"{where} has {named}, which may say how to learn it and is not understood; {leave_out(*marks)}")


def _part(part: Mapping[str, Any], where: str, reading: Reading) -> str:
    """One part of a content, as in OpenAI's `{"type": "text", "text": …}`."""
    rest = {key: value for key, value in part.items() if key not in ("type", *reading.ignore) and not is_empty(value)}
    named = [key for key in PART_TEXTS if key in part and part[key] is not None]
    if part.get("type") not in PART_TYPES or len(named) != 1 or not isinstance(part[named[0]], str):
        kind = f"of type {shown(part['type'])}" if part.get("type") is not None else f"with {', '.join(part)}"
        raise RowError(f"{where} has a part {kind}; OLMoE reads text alone: `type` text with one `text` or `value`")
    rest.pop(named[0], None)
    refuse_parts(rest, f"a part of {where}")
    refuse_marks(rest, f"a part of {where}")
    return part[named[0]]
