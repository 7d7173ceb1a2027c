"""Rows of a file (.jsonl, .json, .csv, each also as .gz; .parquet), of a folder or of a Hub data set, one by one.

Each row comes with the place to name in an error, such as "file.jsonl:12".
"""

import csv
import gzip
import json
import os
import sys
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TextIO

import ijson
import pyarrow
import pyarrow.parquet
from datasets import load_dataset

from olmoe_ft.recipe import RecipeError, Unreachable

Rows = Iterator[tuple[str, Any]]

CHUNK = 1 << 12  # characters of a .json file that show whether it is an array
csv.field_size_limit(sys.maxsize)


def read_rows(path: str, split: str = "train", config: str | None = None, revision: str | None = None) -> Rows:
    """Every row of a source, in its order.

    Args:
        split, config, revision: of a Hub data set, or of a folder laid out like one.
    Raises:
        RecipeError: the source is missing, of another kind, not text, or not what its kind must be.
    """
    file, exists = Path(path), os.path.exists(path)
    readers = {"jsonl": _jsonl_rows, "json": _json_rows, "csv": _csv_rows}
    kind = file.name.removesuffix(".gz").rpartition(".")[2].lower()
    if exists and not file.is_dir() and (split != "train" or config or revision):
        raise RecipeError(f"{path} is a file, which has no split, config or revision; take them out of the recipe")
    if exists and file.is_dir():
        yield from _data_set_rows(path, split, config, revision)
    elif exists and kind == "parquet":
        yield from _parquet_rows(file)
    elif exists and kind in readers:
        try:
            # newline="": a line ends where JSON or CSV say so
            with (gzip.open if file.suffix == ".gz" else open)(file, "rt", encoding="utf-8-sig", newline="") as stream:
                yield from readers[kind](stream, str(file))
        except UnicodeDecodeError as error:
            raise RecipeError(f"{file}: not readable as UTF-8 text ({error.reason}); save it as UTF-8") from None
        except (OSError, EOFError, zlib.error) as error:
            raise RecipeError(f"{file}: cannot be read to its end ({error}); is it whole and a real .gz?") from None
    elif exists:
        raise RecipeError(
            f"{path}: cannot read this kind of file; use .jsonl, .json, .parquet or .csv (.gz for all but Parquet)"
        )
    elif kind in (*readers, "parquet") or path.startswith((".", "/", "~", "data/", "runs/")) or path.count("/") > 1:
        raise RecipeError(f"{path} does not exist; check the path, it is relative to {Path.cwd()}")
    else:
        yield from _data_set_rows(path, split, config, revision)


def _jsonl_rows(stream: TextIO, file: str) -> Rows:
    for number, line in enumerate(stream, 1):
        if line.strip():
            try:
                yield f"{file}:{number}", json.loads(line)
            except (ValueError, RecursionError) as error:
                raise RecipeError(f"{file}:{number}: not valid JSON ({_json_reason(error)})") from None


def _json_rows(stream: TextIO, file: str) -> Rows:
    """The items of one array, or objects one after the other, read piece by piece."""
    start = stream.read(CHUNK)
    in_array = start.lstrip().startswith("[")
    index = 0
    try:
        for index, row in enumerate(
            ijson.items(_Joined(start, stream), "item" if in_array else "", multiple_values=not in_array),
            1,
        ):
            yield f"{file}, row {index}", row
    except UnicodeDecodeError:
        raise
    except (ijson.JSONError, ValueError) as error:
        reason = str(error).splitlines()[0].replace("\\n", " ").strip()
        raise RecipeError(f"{file}, row {index + 1}: not valid JSON ({reason}); is the file whole?") from None


class _Joined:
    """A text stream with its first piece put back, as the bytes that ijson reads."""

    def __init__(self, start: str, rest: TextIO) -> None:
        self.start, self.rest = start.encode(), rest

    def read(self, size: int) -> bytes:
        if size <= 0:
            return b""
        piece, self.start = self.start[:size], self.start[size:]
        return piece or self.rest.read(size).encode()


def _json_reason(error: Exception) -> str:
    if isinstance(error, json.JSONDecodeError):
        return f"{error.msg} at column {error.colno}"
    return "nested too deeply" if isinstance(error, RecursionError) else str(error)


def _csv_rows(stream: TextIO, file: str) -> Rows:
    reader = csv.DictReader(stream, strict=True)
    try:
        _check_names(reader.fieldnames or (), file)
        for row in reader:
            if None in row or None in row.values():
                found = len(row) - 1 + len(row[None]) if None in row else sum(v is not None for v in row.values())
                columns = len(reader.fieldnames or ())
                raise RecipeError(f"{file}:{reader.line_num}: {found} fields where the header names {columns}")
            yield f"{file}:{reader.line_num}", row
    except csv.Error as error:
        raise RecipeError(f"{file}:{reader.line_num}: not valid CSV ({error})") from None


def _parquet_rows(file: Path) -> Rows:
    try:
        with pyarrow.parquet.ParquetFile(file) as table:
            index = 0
            _check_names(table.schema_arrow.names, str(file))
            for batch in table.iter_batches(batch_size=1000):
                for row in batch.to_pylist():
                    index += 1
                    yield f"{file}, row {index}", row
    except UnicodeDecodeError as error:
        raise RecipeError(f"{file}, after row {index}: a text is not UTF-8 ({error.reason})") from None
    except (pyarrow.ArrowException, OSError) as error:
        raise RecipeError(f"{file}: not a readable Parquet file ({str(error).splitlines()[0]})") from None


def _check_names(names: Sequence[str], file: str) -> None:
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise RecipeError(f"{file}: two columns are named {', '.join(twice)}; give each its own name")


def _data_set_rows(name: str, split: str, config: str | None, revision: str | None) -> Rows:
    try:
        rows = load_dataset(name, config, split=split, revision=revision)
    except Exception as error:  # not there, no such split or configuration, no network, no readable file
        reason = (str(error) or type(error).__name__).splitlines()[0]
        if Path(name).is_dir():
            raise RecipeError(f"{name} holds no data set that can be loaded: {reason}") from None
        raise Unreachable(f"{name} is neither a file here nor a data set that can be loaded: {reason}") from None
    for index, row in enumerate(rows, 1):
        yield f"{name}, row {index}", row
