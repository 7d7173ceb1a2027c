"""DeepSpeed's operators are compiled at their first use, under a lock that a killed build leaves behind for ever.

torch's `FileBaton` makes the file and keeps it open while it builds; who comes later waits until it is gone, and says
nothing of it. A lock that no process has open is nobody's.
"""

import os
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from olmoe_ft.data.terminal import say
from olmoe_ft.recipe import UserError

LETS_GO = 1.0  # seconds, more than enough between closing the file and removing it


def check_builds() -> None:
    """Before DeepSpeed is started: say whom it will wait for; to be used once on each computer.

    Raises:
        UserError: a lock has been left by a build that was killed.
    """
    for lock in locks():
        holder = builder(lock)
        if holder is None and not _several_computers():
            time.sleep(LETS_GO)
            if not lock.exists():
                continue
            if builder(lock) is None:
                raise UserError(
                    f"{lock}: a build of DeepSpeed's {lock.parent.name} was ended before it was done, and no process "
                    "here holds this lock; every launch would wait for ever, so remove the file"
                )
        who = f"process {holder} builds" if holder is not None else "another computer may build"
        say(f"{lock}: {who} DeepSpeed's {lock.parent.name}; waiting for the file to go", file=sys.stderr)


def locks() -> list[Path]:
    """Those in the folder that this Python and this torch build into."""
    from torch.utils.cpp_extension import _get_build_directory

    with suppress(OSError):  # cannot be made: DeepSpeed says so
        return sorted(Path(_get_build_directory("", verbose=False)).glob("*/lock"))
    return []


def builder(lock: Path) -> int | None:
    """The process on this computer that has the file open; None where none is seen."""
    return next((pid for pid, file in _open_files() if _same(file, lock)), None)


def _open_files() -> Iterator[tuple[int, Path]]:
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # ended by now, or another user's
            yield from ((int(process.name), file) for file in (process / "fd").iterdir())


def _same(file: Path, lock: Path) -> bool:
    try:
        return file.samefile(lock)
    except OSError:
        return False


def _several_computers() -> bool:
    return os.environ.get("WORLD_SIZE", "1") != os.environ.get("LOCAL_WORLD_SIZE", os.environ.get("WORLD_SIZE", "1"))
