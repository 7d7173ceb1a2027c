"""Cache of read and tokenized rows: folders named by a hash of their content, each written whole or not at all.

In a launch one process of each machine makes an entry. The others poll for its folder; they do not wait in a collective
operation, because that could time out while the first one works.
"""

import hashlib
import json
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterable
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow
from datasets import Dataset, Features, concatenate_datasets, config
from filelock import FileLock

from olmoe_ft.ranks import is_first_here
from olmoe_ft.recipe import UserError

VERSION = 3
"""Version of the entries' content. Raise it with every change after which a row is read, tokenized or noted in another
way, so that entries of an older version are not used. `tests/data/test_cache.py` fails if that was forgotten."""

LISTING = "files.json"  # in each entry: its files with their sizes
ROWS_A_BATCH = 1000
LOOK_EVERY = 0.2  # seconds
SAY_EVERY = 60.0


class Cache:
    """A folder of entries.

    Args:
        folder: where they are kept; None for a folder in the cache of the `datasets` library.
    """

    def __init__(self, folder: str | os.PathLike[str] | None = None) -> None:
        self.folder = Path(folder).expanduser() if folder is not None else Path(config.HF_DATASETS_CACHE) / "olmoe_ft"

    def entry(self, kind: str, key: Any, make: Callable[[Path], None]) -> Path:
        """The folder of an entry; if it is not there, it is made now.

        Args:
            kind: what it holds; its name begins with this.
            key: everything that its content depends on, as JSON values.
            make: writes the content into the folder that it gets.
        Raises:
            UserError: the cache cannot be written, or `make` raises it.
        """
        name = hashlib.sha256(json.dumps([VERSION, key], sort_keys=True).encode()).hexdigest()[:32]
        path = self.folder / f"{kind}-{name}"
        if _is_whole(path):
            return path
        if not is_first_here():
            _wait_for(path)
            return path
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with FileLock(self.folder / f".{path.name}.lock"):  # another launch may be making the same entry
                if not _is_whole(path):
                    self._make(path, make)
        except OSError as error:
            raise UserError(
                f"{self.folder}: prepared rows cannot be written there ({error.strerror or error}); "
                "set data.cache to a folder on a disk with free space"
            ) from None
        return path

    def _make(self, path: Path, make: Callable[[Path], None]) -> None:
        partial = path.with_name(path.name + ".partial")
        shutil.rmtree(partial, ignore_errors=True)  # left by a process that was killed
        partial.mkdir()
        try:
            make(partial)
            sizes = {file.name: file.stat().st_size for file in partial.iterdir()}
            (partial / LISTING).write_text(json.dumps(sizes), encoding="utf-8")
            shutil.rmtree(path, ignore_errors=True)  # an entry that has lost files
            os.replace(partial, path)
        finally:
            shutil.rmtree(partial, ignore_errors=True)


def write_rows(file: Path, rows: Iterable[dict[str, Any]], features: Features) -> None:
    """Write rows as a file of Arrow batches, which `entry_rows` reads."""
    schema = features.arrow_schema
    with pyarrow.OSFile(str(file), "wb") as sink, pyarrow.ipc.new_stream(sink, schema) as writer:
        remaining = iter(rows)
        while batch := list(islice(remaining, ROWS_A_BATCH)):
            writer.write_batch(pyarrow.RecordBatch.from_pylist(batch, schema=schema))


def entry_rows(entry: Path, name: str) -> Dataset:
    """The rows of the Arrow files `name*.arrow` in an entry, in the order of the files' names; they stay on disk.

    `datasets` writes its own files beside them, such as packed rows.
    """
    return concatenate_datasets([Dataset.from_file(str(file)) for file in sorted(entry.glob(f"{name}*.arrow"))])


def _is_whole(path: Path) -> bool:
    """Whether an entry is there and its files have the sizes they were written with."""
    try:
        sizes = json.loads((path / LISTING).read_text(encoding="utf-8"))
        return all((path / name).stat().st_size == size for name, size in sizes.items())
    except (OSError, ValueError):
        return False


def _wait_for(path: Path) -> None:
    """Wait for an entry that the first process of this machine makes. Exits if that launch has ended."""
    parent, printed = os.getppid(), time.monotonic()
    while not _is_whole(path):
        time.sleep(LOOK_EVERY)
        if os.getppid() != parent:
            sys.exit(1)  # the launcher is gone
        if time.monotonic() - printed > SAY_EVERY:
            printed = time.monotonic()
            print(f"process {os.environ.get('RANK')} is waiting for another one to prepare the rows", file=sys.stderr)
