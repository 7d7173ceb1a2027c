"""Only one launch trains in a run directory: its first process holds a file `lock` there as long as it runs.

On the same computer the holder's process is looked up by its number and start time, since numbers are used again. From
elsewhere the file is watched: its holder updates the file's time every few seconds. The clocks of two computers are
never compared.
"""

import fcntl
import os
import platform
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import BinaryIO, NamedTuple

from pydantic import BaseModel, ConfigDict

from olmoe_ft.data.terminal import say
from olmoe_ft.ending import FAILURE
from olmoe_ft.recipe import UserError
from olmoe_ft.stopping import done_at_a_stop
from olmoe_ft.training.signs import computer

NAME = "lock"
BEAT = 10.0  # seconds between updates of the file's time
WATCH = 60.0  # seconds in which a launch elsewhere must update its file
WATCH_DAMAGED = 25.0  # the same for a file that names no process
LOOK = 0.5  # seconds between checks of the file
DEAD = "ZX"  # states of a process that has ended, but that its parent has not reaped


class Holder(BaseModel):
    """The process that trains, as the file names it."""

    model_config = ConfigDict(frozen=True, strict=True)

    host: str
    pid: int
    machine: str | None
    """Where `pid` is valid: one boot of one computer, one container in it. None if unknown."""
    started: int | None
    """Start time in ticks since that boot."""
    since: str

    @classmethod
    def here(cls) -> "Holder":
        pid, since = os.getpid(), datetime.now().astimezone().isoformat(" ", "seconds")
        return cls(host=platform.node(), pid=pid, machine=computer(), started=_started(pid), since=since)

    def lives(self) -> bool | None:
        """Whether the process still runs; None if that cannot be seen from here."""
        if self.machine is None or self.machine != computer():
            return None
        return self.started is not None and self.started == _started(self.pid)


class Look(NamedTuple):
    """The state of a lock file."""

    holder: Holder | None
    """None if it names no process."""
    touched: int
    """Time of the last update, in nanoseconds."""


@contextmanager
def only_launch(folder: Path) -> Iterator[None]:
    """Hold the lock of a run directory within the block; for one process of a launch. Creates the folder.

    Raises:
        UserError: another launch holds it.
        OSError: the folder cannot be written.
    """
    file, own, ended = folder / NAME, Holder.here(), threading.Event()
    _take(file, own)
    threading.Thread(target=_beat, args=(file, own, ended), daemon=True).start()

    def release() -> None:
        ended.set()
        if (found := _look(file)) is not None and found.holder == own:
            file.unlink(missing_ok=True)

    with done_at_a_stop(release):
        try:
            yield
        finally:
            release()


def refuse_second(folder: Path) -> None:
    """Refuse at once, before rows are read, if a launch is seen to train in the folder.

    Raises:
        UserError: one does.
    """
    found = _look(folder / NAME)
    if found is not None and found.holder is not None and found.holder.lives():
        raise _held(folder, found.holder)


def held(folder: Path) -> bool | None:
    """Whether a launch is seen to train in a folder; None where that cannot be seen from here."""
    found = _look(folder / NAME)
    if found is None:
        return False
    return found.holder.lives() if found.holder is not None else None


def _take(file: Path, own: Holder) -> None:
    while not _create(file, own):
        if file.is_dir() and not file.is_symlink():
            raise UserError(f"{file}: found a folder; allowed: a file that says who trains here; move the folder away")
        if (found := _look(file)) is None:
            continue  # its holder has released it
        alive = None if found.holder is None else found.holder.lives()
        if alive is None:
            alive = _moves(file, found)
        if alive:
            if (now := _named(file)) is not None:
                raise _held(file.parent, now.holder)
        elif _remove(file, found):
            say(f"{file.parent}: {_gone(found.holder)}; this launch takes over", file=sys.stderr)


def _create(file: Path, own: Holder) -> bool:
    """Write the lock unless there is one; if several launches try at the same time, only one succeeds."""
    file.parent.mkdir(parents=True, exist_ok=True)
    try:
        stream = file.open("x", encoding="utf-8")
    except (FileExistsError, FileNotFoundError):  # not found: another launch has just removed the empty folder
        return False
    try:
        with stream:
            stream.write(own.model_dump_json() + "\n")
    except OSError as error:
        file.unlink(missing_ok=True)
        raise OSError(error.errno, error.strerror, str(file)) from None
    return True


def _moves(file: Path, found: Look) -> bool:
    """Whether somebody updates the file's time, replaces it, or removes it."""
    seconds = WATCH_DAMAGED if found.holder is None else WATCH
    who = "names no process" if found.holder is None else f"names process {found.holder.pid} on {found.holder.host}"
    say(f"{file} {who}; watching it for {seconds:.0f} s to see whether that launch still trains", file=sys.stderr)
    end = time.monotonic() + seconds
    while _look(file) == found:
        if time.monotonic() > end:
            return False
        time.sleep(LOOK)
    return True


def _named(file: Path) -> Look | None:
    """The lock once it names a process: another launch may just be writing it. As it is if it never does."""
    end = time.monotonic() + WATCH_DAMAGED
    while (found := _look(file)) is not None and found.holder is None and time.monotonic() < end:
        time.sleep(LOOK)
    return found


def _remove(file: Path, found: Look) -> bool:
    """Remove a lock that nobody holds, unless another launch has written its own by now."""
    if file.is_symlink():
        file.unlink(missing_ok=True)
        return True
    with suppress(FileNotFoundError), file.open("rb+") as stream:
        with suppress(OSError):  # a disk without such locks
            fcntl.flock(stream, fcntl.LOCK_EX)
        if _seen(stream) == found and os.path.samestat(os.fstat(stream.fileno()), file.lstat()):
            file.unlink()
            return True
    return False


def _beat(file: Path, own: Holder, ended: threading.Event) -> None:
    while not ended.wait(BEAT):
        found = _look(file)
        holder = found.holder if found is not None else None
        if holder is not None and holder != own and not ended.is_set():
            say(
                f"{file.parent} is now being trained by process {holder.pid} on {holder.host}, which saw no sign of "
                "this "
                "launch for a minute; this launch ends",
                file=sys.stderr,
            )
            os._exit(FAILURE)
        with suppress(OSError):  # removed with the folder: training will notice by itself
            os.utime(file)


def _held(folder: Path, holder: Holder | None) -> UserError:
    by = (
        f"process {holder.pid} on {holder.host} since {holder.since}"
        if holder
        else "a launch that still renews its lock"
    )
    return UserError(f"{folder} is being trained by {by}; wait for it, stop it, or give this run another `name`")


def _gone(holder: Holder | None) -> str:
    if holder is None:
        return "its lock names no process, and nobody renews it"
    return f"process {holder.pid} on {holder.host} is gone"


def _look(file: Path) -> Look | None:
    """The state of a lock; None if there is no file. The file is opened, so that a network disk asks its server."""
    try:
        with file.open("rb") as stream:
            return _seen(stream)
    except OSError:
        return Look(None, file.lstat().st_mtime_ns) if os.path.lexists(file) else None


def _seen(stream: BinaryIO) -> Look:
    try:
        holder = Holder.model_validate_json(stream.read())
    except ValueError:
        holder = None
    return Look(holder, os.fstat(stream.fileno()).st_mtime_ns)


def _started(pid: int) -> int | None:
    """Field 22 of /proc/PID/stat (proc_pid_stat(5)); None if there is no such process."""
    try:
        state, *fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    except OSError:
        return None
    return None if state in DEAD else int(fields[18])
