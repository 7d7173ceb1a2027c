"""The records that a run adds to `metrics.jsonl`, as it adds them."""

import json
import os
from pathlib import Path
from typing import Any

Record = dict[str, Any]


class Records:
    """Reads a file of records from where it stopped reading.

    A run that continues from a checkpoint writes the file anew, without the records behind that checkpoint. Then it is
    read from its start again, and `begins` has changed.
    """

    def __init__(self, file: Path) -> None:
        self.file = file
        self.begins = 0
        """How often it was read from the start."""
        self._place, self._inode = 0, -1

    def new(self) -> list[Record]:
        """The whole lines since the last time; a damaged one is left out."""
        try:
            stream = self.file.open("rb")
        except FileNotFoundError:
            return []
        with stream:
            status = os.fstat(stream.fileno())
            if status.st_ino != self._inode or status.st_size < self._place:
                self._place, self._inode = 0, status.st_ino
                self.begins += 1
            stream.seek(self._place)
            written = stream.read()
        whole = written[: written.rfind(b"\n") + 1]  # the last line is being written
        self._place += len(whole)
        return [record for line in whole.splitlines() if (record := _record(line)) is not None]


def number(value: object) -> float | None:
    """The number of a record; the texts "NaN", "Infinity" and "-Infinity" are some, because JSON has none of these."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        return float(value)
    except ValueError:
        return None


def _record(line: bytes) -> Record | None:
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) and type(found.get("step")) is int else None
