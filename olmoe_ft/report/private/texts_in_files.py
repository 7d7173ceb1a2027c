"""The texts of a file, however large it is, to look for what is private in it."""

import codecs
import io
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

READ = 2**23  # bytes at once
OVERLAP = 2**13  # characters that the next piece begins with again, so that no key lies between two pieces
MARKS = {  # at the beginning of a file; the longer ones first, which begin like others
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}


class Piece(NamedTuple):
    """A part of a text, and the number of its first line."""

    text: str
    line: int


def texts_in(file: Path, header: bool) -> Iterator[Piece]:
    """The text of a file, in pieces.

    Args:
        header: whether to read nothing but the header of safetensors. It must be known to be whole.
    """
    with file.open("rb") as stream:
        if header:
            yield from texts_of(io.BytesIO(stream.read(int.from_bytes(stream.read(8), "little"))))
        else:
            yield from texts_of(stream)


def texts_of(stream: BinaryIO) -> Iterator[Piece]:
    """The text of a stream, in pieces. What is no text is read as if it were."""
    start = stream.read(READ)
    encoding = next((name for mark, name in MARKS.items() if start.startswith(mark)), "utf-8")
    decoder = codecs.getincrementaldecoder(encoding)("replace")
    kept, line = "", 1
    while start:
        text = kept + decoder.decode(start)
        yield Piece(text, line)
        kept = text[-OVERLAP:]
        line += text.count("\n", 0, len(text) - len(kept))
        start = stream.read(READ)
