"""Rows of JSON text, read piece by piece: an array of rows, or a sequence of them.

Python's own decoder reads each row, in .json files as in .jsonl ones, so both mean the same. NaN, which is not JSON but
which Python writes, is read as null. A key that appears twice is an error, because one of its values would be lost.
"""

import json
from collections.abc import Iterator
from typing import Any, TextIO

CHUNK = 1 << 16  # characters
UNDECIDED = 12  # an error this close to the end of the text so far may go away with more text ("-Infinity", "\u00e4")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"the key {next(name for name in names if names.count(name) > 1)!r} appears twice")
    return found


def _constant(name: str) -> float | None:
    return None if name == "NaN" else float(name)


DECODER = json.JSONDecoder(object_pairs_hook=_object, parse_constant=_constant)


def json_values(stream: TextIO) -> Iterator[Any]:
    """The items of the arrays in a stream, or its values if they are not in an array.

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
        while (sign := text.peek()) == ",":
            text.skip()
            yield text.value()
        if sign != "]":
            raise ValueError("an array does not end" if not sign else f"found {sign!r}; allowed: ',' or ']'")
        text.skip()
    while start:
        yield text.value()
        start = text.peek()


def json_reason(error: Exception) -> str:
    """Why a text is not JSON."""
    if isinstance(error, json.JSONDecodeError):
        return f"{error.msg} at column {error.colno}"
    return "nested too deeply" if isinstance(error, RecursionError) else str(error)


class _Text:
    """The part of a stream that has been read but not used yet."""

    def __init__(self, stream: TextIO) -> None:
        self.stream, self.text, self.place = stream, "", 0

    def peek(self) -> str:
        """The next character that is not white space; empty at the end."""
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
                if closed or not self._more(size):  # otherwise a number may continue
                    self.place = end
                    return found
            except json.JSONDecodeError as error:
                open_end = error.msg.startswith("Unterminated") or error.pos >= len(self.text) - UNDECIDED
                if not open_end or not self._more(size):
                    raise ValueError(error.msg) from None
            size *= 2

    def _more(self, size: int) -> bool:
        """Read more; returns whether there was more."""
        piece = self.stream.read(size)
        if piece:
            self.text, self.place = self.text[self.place :] + piece, 0
        return bool(piece)
