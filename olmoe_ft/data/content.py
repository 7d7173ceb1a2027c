"""The text of a turn: a plain text, or a list of content parts."""

from collections.abc import Mapping
from typing import Any

from olmoe_ft.data.reader import RowReader
from olmoe_ft.data.rows import RowError, says_nothing, shown, shown_keys
from olmoe_ft.data.unread import refuse_marks, refuse_parts

PART_TYPES = (None, "text", "input_text", "output_text")
PART_TEXTS = ("text", "value", "input_text", "output_text", "content")  # keys that may hold the text of a part


def text(value: Any, where: str, row: RowReader) -> str:
    """A text that is not empty, unchanged; the texts of parts are joined.

    Raises:
        RowError: it is not a text, is blank, or has a lone surrogate.
    """
    value = joined(value, where, row)
    if not isinstance(value, str) or not value.strip():
        raise RowError(f"{where}: found {shown(value)}; allowed: a text that is not empty")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise RowError(f"{where} has a broken character (a lone surrogate)") from None
    return value


def joined(value: Any, where: str, row: RowReader) -> Any:
    """The text of a list of parts, or of one part; anything else is returned unchanged.

    Raises:
        RowError: a part is not a text, or has more than one.
    """
    parts = [value] if isinstance(value, Mapping) else value
    if isinstance(parts, list) and parts and all(isinstance(part, Mapping) for part in parts):
        return "".join(_part(part, where, row) for part in parts)
    return value


def _part(part: Mapping[str, Any], where: str, row: RowReader) -> str:
    """The text of one content part, as in OpenAI's `{"type": "text", "text": …}`."""
    part = row.without_ignored(part, "content[].")
    if "role" in part or "from" in part:
        raise RowError(f"{where}: found a message with a role; allowed: a text; put the message into a list")
    named = [key for key in PART_TEXTS if part.get(key) is not None]
    if part.get("type") not in PART_TYPES or len(named) != 1 or not isinstance(part[named[0]], str):
        kind = f"of type {shown(part['type'])}" if part.get("type") is not None else f"with {shown_keys(part)}"
        raise RowError(
            f"{where} has a part {kind}; allowed: `type` text with one `text` or `value`, because OLMoE reads only text"
        )
    rest = {key: value for key, value in part.items() if key not in ("type", named[0]) and not says_nothing(value)}
    refuse_parts(rest, f"a part of {where}")
    refuse_marks(rest, f"a part of {where}")
    row.note_unread("content[].", rest)
    return part[named[0]]
