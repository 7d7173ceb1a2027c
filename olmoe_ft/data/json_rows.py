"""Rows of JSON text, read piece by piece: an array of them, or one after the other.

Python's own decoder reads each row, in .json files as in .jsonl ones, so that both mean the same. What JSON cannot say
and Python writes all the same is taken as it was meant: NaN is no value. A key that stands twice is an error: one of
its values would be lost.
"""

import json
from collections.abc import Iterator
from typing import Any, TextIO

CHUNK = 1 << 16  # characters
UNDECIDED = 12  # an error this close to the end of what has been read may be mended by the rest ("-Infinity", "\u00e4")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"the key {next(name for name in names if names.count(name) > 1)!r} stands twice")
    return found


def _constant(name: str) -> float | None:
    return None if name == "NaN" else float(name)


DECODER = json.JSONDecoder(object_pairs_hook=_object, parse_constant=_constant)


def json_values(stream: TextIO) -> Iterator[Any]:
    """The items of the arrays in a stream, or its values where they stand in none.

    Raises:
        ValueError: not valid JSON; the message says why.
    """
    text = _Text(stream)
    while (start := text.peek()) == "[":
        text.skip()
        if text.peek() == "]":
            text.skip()
            continue
        yield text.value()
        while (mark := text.peek()) == ",":
            text.skip()
            yield text.value()
        if mark != "]":
            raise ValueError("an array does not end" if not mark else f"',' or ']' expected, found {mark!r}")
        text.skip()
    while start:
        yield text.value()
        start = text.peek()


def json_reason(error: Exception) -> str:
    """Why a text is no JSON."""
    if isinstance(error, json.JSONDecodeError):
        return f"{error.msg} at column {error.colno}"
    return "nested too deeply" if isinstance(error, RecursionError) else str(error)


class _Text:
    """What has been read of a stream and not yet been used."""

    def __init__(self, stream: TextIO) -> None:
        self.stream, self.text, self.place = stream, "", 0

    def peek(self) -> str:
        """The next character that is no white space; nothing at the end."""
        while True:
            while self.place < len(self.text):
                if self.text[self.place] not in " \t\r\n":
                    return self.text[self.place]
                self.place += 1
            if not self._more(CHUNK):
                return ""

    def skip(self) -> None:
        self.place += 1

    def value(self) -> Any:
        """The value that begins at the next character."""
        if not self.peek():
            raise ValueError("a value is missing at the end")
        size = CHUNK
        while True:
            try:
                found, end = DECODER.raw_decode(self.text, self.place)
                closed = isinstance(found, dict | list | str) or end < len(self.text) - UNDECIDED
                if closed or not self._more(size):  # else a number may go on
                    self.place = end
                    return found
            except json.JSONDecodeError as error:
                open_end = error.msg.startswith("Unterminated") or error.pos >= len(self.text) - UNDECIDED
                if not open_end or not self._more(size):
                    raise ValueError(error.msg) from None
            size *= 2

    def _more(self, size: int) -> bool:
        """Read on; whether there was more."""
        piece = self.stream.read(size)
        if piece:
            self.text, self.place = self.text[self.place :] + piece, 0
        return bool(piece)
