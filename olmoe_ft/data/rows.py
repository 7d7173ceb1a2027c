"""One row while it is read: what a recipe says of reading it, which keys have been read, and what the others hold.

A key that nobody reads is counted. One that carries a part of the example (a picture, a tool, a judgement) is an
error: left out in silence, the row would teach something else than it says.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

KEYS_SHOWN = 10
VALUE_SHOWN = 200  # characters

CONTENT_WORDS = 20  # from which a text that is not read may be a part of the example

# A picture, a video, a sound: by a word of the key, or by a file's name as its value.
MEDIA_KEY = re.compile(r"(^|_)(images?|img|pictures?|photos?|videos?|audios?|pixel)(_|$)", re.IGNORECASE)
MEDIA_FILE = re.compile(r"\.(jpe?g|png|gif|webp|bmp|tiff?|mp4|mov|webm|avi|mkv|wav|mp3|flac|ogg|m4a)$", re.IGNORECASE)
TOOLS = ("tools", "functions")
JUDGEMENTS = ("label", "kto_tag")
MARKS = ("train", "trainable", "loss", "loss_mask", "weight", "loss_weight")  # whether a turn is learned
# Keys of the formats we know, and of their near relatives. One that is not read may hold another version of the row.
FORMAT_KEYS = frozenset(
    "messages conversations conversation prompt completion instruction input output history system system_prompt text "
    "question answer query response chosen rejected context document system_message".split()
)


class RowError(ValueError):
    """A row is not what its format needs; the message says what is missing or wrong."""


@dataclass(frozen=True)
class Reading:
    """What a recipe says of how rows are read."""

    learn: Literal["all_answers", "last_answer", "completion"] = "all_answers"
    """Which assistant turns are learned."""
    obey_marks: bool = False
    """Whether marks of single turns (`train: false`) choose among these; otherwise such a mark is an error."""
    ignore: frozenset[str] = frozenset()
    """Keys of rows, turns and content parts to leave unread whatever they hold."""


USUAL = Reading()


class RowReader:
    """A row and the record of what has been read of it."""

    def __init__(self, row: Mapping[str, Any], reading: Reading) -> None:
        self.row = {key: value for key, value in row.items() if key not in reading.ignore}
        self.reading = reading
        self.ignored = [key for key in row if key in reading.ignore and not is_empty(row[key])]
        self._read: set[str] = set()
        self._unread_inside: dict[str, bool] = {}  # keys of turns, in the order met, and whether they may matter

    def get(self, key: str) -> Any:
        """The value of a key, which counts as read."""
        self._read.add(key)
        return self.row.get(key)

    def is_filled(self, *keys: str) -> bool:
        """Whether each of the keys holds something."""
        return all(not is_empty(self.row.get(key)) for key in keys)

    def note_unread(self, place: str, keys: Mapping[str, Any]) -> None:
        """Count the keys of a turn or a part, named like `messages[].name`."""
        for key, value in keys.items():
            name = f"{place}[].{key}"
            self._unread_inside[name] = self._unread_inside.get(name, False) or _may_matter(key, value, set())

    def unread(self, said: Iterable[str]) -> dict[str, list[str]]:
        """The keys that were not read, and which of them may matter.

        Args:
            said: the texts that were read; a key that only repeats them does not matter.
        Raises:
            RowError: one holds a part of the example.
        """
        left = {key: value for key, value in self.row.items() if key not in self._read and not is_empty(value)}
        refuse_parts(left, "the row")
        _refuse_marks_of_the_row(left)
        texts = {text.strip() for text in said}
        matter = [key for key, value in left.items() if _may_matter(key, value, texts)]
        matter += [key for key, matters in self._unread_inside.items() if matters]
        return {"unread": [*left, *self._unread_inside, *self.ignored], "doubtful": matter}


def _refuse_marks_of_the_row(keys: Mapping[str, Any]) -> None:
    """Refuse a word for "do not learn this" where it stands for the whole row, or as a list for its turns."""
    for key in MARKS:
        value = keys.get(key, 1)
        is_number = isinstance(value, bool | int | float)
        if isinstance(value, list | tuple) or (is_number and (value == 0 or ("weight" in key and value != 1))):
            raise RowError(f"the row has `{key}` {shown(value)}, which this stage does not obey; {leave_out(key)}")


def _may_matter(key: str, value: Any, said: set[str]) -> bool:
    """Whether a key that was not read may be a part of the example: it is true or false, or a text of its own."""
    if isinstance(value, bool):
        return True
    is_content = key in FORMAT_KEYS or (isinstance(value, str) and len(value.split()) >= CONTENT_WORDS)
    return is_content and holds_text(value) and not _repeats(value, said)


def _is_media(key: str, value: Any) -> bool:
    if isinstance(value, list | tuple):
        return bool(value) and _is_media(key, value[0])
    if isinstance(value, Mapping) and {"bytes", "path"} <= value.keys():  # as `datasets` holds them
        return True
    return (
        bool(MEDIA_KEY.search(key))
        or isinstance(value, bytes)
        or (isinstance(value, str) and bool(MEDIA_FILE.search(value)))
    )


def refuse_parts(keys: Mapping[str, Any], where: str) -> None:
    """Refuse keys that hold what a conversation of texts cannot say.

    Raises:
        RowError: one is there and not empty.
    """
    for key, value in keys.items():
        if is_empty(value):
            continue
        if key in TOOLS or _is_media(key, value):
            raise RowError(f"{where} has `{key}`, which OLMoE's chat format cannot express; {leave_out(key)}")
        if key in JUDGEMENTS:
            raise RowError(f"{where} has `{key}`, a judgement that this stage does not obey; {leave_out(key)}")


def leave_out(*keys: str) -> str:
    """What to do about keys that are refused."""
    return (
        "take such rows out (`data.malformed: drop` does), or leave the key unread with "
        f"`ignore: [{', '.join(keys)}]` beside the source's `path`"
    )


def is_empty(value: Any) -> bool:
    """Whether a value says nothing: null, NaN, a blank text, an empty list, or one of these as JSON text."""
    if isinstance(value, str):
        return not value.strip() or value in ("[]", "{}", "null")
    return value is None or value != value or (isinstance(value, Mapping | list | tuple) and not value)


def holds_text(value: Any) -> bool:
    """Whether a value is a text or holds one somewhere."""
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, list | tuple):
        return any(holds_text(item) for item in value)
    return isinstance(value, str) and bool(value.strip())


def shown(value: Any) -> str:
    """A value as a message shows it: escaped, and at most VALUE_SHOWN characters."""
    if value is None:
        return "nothing"
    text = repr(value[:VALUE_SHOWN] if isinstance(value, str | bytes) else value)
    return text if len(text) <= VALUE_SHOWN else f"{text[: VALUE_SHOWN - 1]}…"


def shown_keys(row: Mapping[str, Any]) -> str:
    """The first keys of a row; null ones are marked."""
    named = [shown(key)[1:-1] + (" (null)" if value is None else "") for key, value in row.items()]
    more = f" and {len(named) - KEYS_SHOWN} more" if len(named) > KEYS_SHOWN else ""
    return ", ".join(named[:KEYS_SHOWN]) + more if named else "no keys"


def _repeats(value: Any, texts: set[str]) -> bool:
    """Whether a text, or every text of a list of turns, stands in what was read."""
    if isinstance(value, str):
        return any(value.strip() in text for text in texts)
    if isinstance(value, list | tuple):
        said = [turn.get("content") or turn.get("value") if isinstance(turn, Mapping) else turn for turn in value]
        return all(isinstance(text, str) and text.strip() in texts for text in said)
    return False
