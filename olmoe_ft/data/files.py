"""Read the rows of a file one by one (.jsonl, .json, .csv, each also as .gz; .parquet).

Each row comes with its place for error messages, such as "file.jsonl:12".
"""

import csv
import gzip
import os
import sys
import zlib
from collections.abc import Iterator, Sequence
from io import StringIO, TextIOWrapper
from pathlib import Path
from typing import Any, BinaryIO, TextIO, cast

import pyarrow
import pyarrow.parquet

from olmoe_ft.data.class_names import names_of_schema
from olmoe_ft.data.json_rows import CHUNK, DECODER, json_reason, json_values
from olmoe_ft.data.rows import Unreadable
from olmoe_ft.reasons import one_line
from olmoe_ft.recipe import UserError

Rows = Iterator[tuple[str, Any]]

MOST_PACKED, UNPACKED = (
    100,
    1 << 28,
)  # text compresses to about a quarter; beyond both limits a file is a bomb or has nothing to learn
LOOKED_AT = 1 << 22  # bytes of a .gz that are checked before its rows are read
ROWS_AT_ONCE = 16  # of a .parquet, where each row can be very long
READABLE = "allowed: .jsonl, .json, .csv (each also as .gz), .parquet"


def kind_of(path: str | Path) -> str:
    """The kind of a file by its name, in lower case: "jsonl" for `a.JSONL.gz`."""
    return Path(path).name.removesuffix(".gz").rpartition(".")[2].lower()


def is_readable(path: str | Path) -> bool:
    """Whether a file of this name holds rows that can be read."""
    return kind_of(path) in READERS or (kind_of(path) == "parquet" and Path(path).suffix != ".gz")


def file_rows(file: Path) -> Rows:
    """Every row of a file, in order.

    Raises:
        UserError: the kind of file is not known, or the file is not text or not valid.
    """
    if not is_readable(file):
        raise UserError(f"{file}: this kind of file cannot be read; {READABLE}")
    if kind_of(file) == "parquet":
        yield from _parquet_rows(file)
        return
    try:
        # newline="": JSON and CSV decide where a line ends
        with TextIOWrapper(_opened(file), encoding="utf-8-sig", newline="") as stream:
            yield from READERS[kind_of(file)](stream, str(file))
    except UnicodeDecodeError as error:
        raise UserError(f"{file}: not UTF-8 text ({error.reason}); save the file as UTF-8") from None
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(
            f"{file}: cannot be read to its end ({error}); check that it is complete, or download it again"
        ) from None


def _opened(file: Path) -> BinaryIO:
    if file.suffix != ".gz":
        return file.open("rb")
    with _Gzip(file) as look:  # find a bomb before hours are spent on reading its rows
        while look.packed < LOOKED_AT and look.read1(CHUNK):
            pass
    return cast(BinaryIO, _Gzip(file))


class _Gzip(gzip.GzipFile):
    """A .gz file that raises an error if it unpacks to very much more than its size."""

    @property
    def packed(self) -> int:
        """Compressed bytes that have been read."""
        return os.lseek(self.fileno(), 0, os.SEEK_CUR)

    def read1(self, size: int = -1) -> bytes:
        piece = super().read1(size)
        _refuse_bomb(Path(self.name), self.packed, self.tell(), "unpack it (gunzip) and name the unpacked file")
        return piece


def _refuse_bomb(file: Path, packed: int, unpacked: int, instead: str) -> None:
    if unpacked > UNPACKED and unpacked > MOST_PACKED * packed:
        raise UserError(
            f"{file}: its first {packed:,} bytes unpack to {unpacked:,}, which no real file of rows does; "
            f"if you really want to train on it, {instead}"
        )


def _jsonl_rows(stream: TextIO, file: str) -> Rows:
    start = stream.read(CHUNK)
    joined = _Joined(start, stream)
    if start.lstrip().startswith("[") and start.lstrip()[1:].lstrip().startswith("{"):
        yield from _json_rows(joined, file)  # an array in a file named .jsonl
        return
    for number, line in enumerate(joined.lines(), 1):
        if line.strip():
            try:
                row = DECODER.decode(line)
            except (ValueError, RecursionError) as error:
                row = Unreadable(f"not valid JSON ({json_reason(error)})")
            yield f"{file}:{number}", row


def _json_rows(stream: Any, file: str) -> Rows:
    """The items of an array, or of a sequence of objects."""
    index = 0
    try:
        for index, row in enumerate(json_values(stream), 1):
            yield f"{file}, row {index}", row
    except UnicodeDecodeError:
        raise
    except (ValueError, RecursionError) as error:
        reason = json_reason(error)
        raise UserError(
            f"{file}, row {index + 1}: not valid JSON ({reason}); correct it, or check that the file is complete"
        ) from None


class _Joined:
    """A text stream with its first piece put back."""

    def __init__(self, start: str, rest: TextIO) -> None:
        self.start, self.rest = start, rest

    def read(self, size: int) -> str:
        piece, self.start = self.start, ""
        return piece or self.rest.read(size)

    def lines(self) -> Iterator[str]:
        yield from StringIO(self.start + self.rest.readline(), newline="")
        yield from self.rest


def _csv_rows(stream: TextIO, file: str) -> Rows:
    csv.field_size_limit(sys.maxsize)  # the module's own limit, of 128 KiB, is less than a long conversation
    reader = csv.DictReader(stream, strict=True)
    try:
        check_names(reader.fieldnames or (), file)
        for row in reader:
            place = f"{file}:{reader.line_num}"
            if None in row or None in row.values():
                found = len(row) - 1 + len(row[None]) if None in row else sum(v is not None for v in row.values())
                yield place, Unreadable(f"found {found} fields where the header names {len(reader.fieldnames or ())}")
            else:
                yield place, row
    except csv.Error as error:
        raise UserError(
            f"{file}:{reader.line_num}: not valid CSV ({error}); correct the line, most likely its quotes"
        ) from None


def _parquet_rows(file: Path) -> Rows:
    try:
        with pyarrow.parquet.ParquetFile(file) as table:
            index = 0
            check_names(table.schema_arrow.names, str(file))
            names = names_of_schema(table.schema_arrow.metadata)
            packed, unpacked = file.stat().st_size, 0
            for batch in table.iter_batches(batch_size=ROWS_AT_ONCE):
                unpacked += batch.nbytes
                _refuse_bomb(file, packed, unpacked, "write its rows as .jsonl and name that file")
                for row in batch.to_pylist():
                    index += 1
                    yield f"{file}, row {index}", names.given_in(row)
    except UnicodeDecodeError as error:
        raise UserError(
            f"{file}, after row {index}: a text is not UTF-8 ({error.reason}); write the file again as UTF-8"
        ) from None
    except (UserError, MemoryError):
        raise
    except (pyarrow.ArrowException, OSError, ValueError, OverflowError) as error:
        raise UserError(
            f"{file}: not a readable Parquet file ({one_line(error)}); download or write it again"
        ) from None


def check_names(names: Sequence[str], file: str) -> None:
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise UserError(f"{file}: found more than one column named {', '.join(twice)}; give each its own name")


READERS = {"jsonl": _jsonl_rows, "json": _json_rows, "csv": _csv_rows}
