"""One launch trains in a run directory: its first process holds a file `lock` there for as long as it lives.

Whether the holder lives is looked up where its process can be seen: by its number and the time it was started, since
numbers come round. Elsewhere the file is watched: its holder gives it a new time every few seconds. No two computers'
clocks are compared.
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
BEAT = 10.0  # seconds between two times of the file
WATCH = 60.0  # seconds in which the file of a launch elsewhere must move
WATCH_DAMAGED = 25.0  # the same of a file that names no process
LOOK = 0.5  # seconds between two looks at it
DEAD = "ZX"  # a process that has ended, and whose parent has not asked how


class Holder(BaseModel):
    """Who trains, as it stands in the file."""

    model_config = ConfigDict(frozen=True, strict=True)

    host: str
    pid: int
    machine: str | None
    """Where `pid` means this process: one boot of one computer, one container in it. None where that is not known."""
    started: int | None
    """When it was, in ticks since that boot."""
    since: str

    @classmethod
    def here(cls) -> "Holder":
        pid, since = os.getpid(), datetime.now().astimezone().isoformat(" ", "seconds")
        return cls(host=platform.node(), pid=pid, machine=computer(), started=_started(pid), since=since)

    def lives(self) -> bool | None:
        """None where that cannot be seen from here."""
        if self.machine is None or self.machine != computer():
            return None
        return self.started is not None and self.started == _started(self.pid)


class Look(NamedTuple):
    """A lock, as it is found."""

    holder: Holder | None
    """None where it names no process."""
    touched: int
    """When, in nanoseconds."""


@contextmanager
def only_launch(folder: Path) -> Iterator[None]:
    """Hold the lock of a run directory within the block; for one process of a launch. Makes the folder.

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
    """Refuse at once, before rows are read, where a launch that is seen to live trains in the folder.

    Raises:
        UserError: it does.
    """
    found = _look(folder / NAME)
    if found is not None and found.holder is not None and found.holder.lives():
        raise _held(folder, found.holder)


def _take(file: Path, own: Holder) -> None:
    while not _create(file, own):
        if file.is_dir() and not file.is_symlink():
            raise UserError(f"{file} is a folder, where a file should say who trains here; move it away")
        if (found := _look(file)) is None:
            continue  # its holder has let go
        alive = None if found.holder is None else found.holder.lives()
        if alive is None:
            alive = _moves(file, found)
        if alive:
            if (now := _look(file)) is not None:
                raise _held(file.parent, now.holder)
        elif _remove(file, found):
            say(f"{file.parent}: {_gone(found.holder)}; this launch takes over", file=sys.stderr)


def _create(file: Path, own: Holder) -> bool:
    """Write the lock unless there is one: of launches that come at the same instant, one does."""
    file.parent.mkdir(parents=True, exist_ok=True)
    try:
        stream = file.open("x", encoding="utf-8")
    except (FileExistsError, FileNotFoundError):  # not found: a launch that leaves nothing has just removed the folder
        return False
    try:
        with stream:
            stream.write(own.model_dump_json() + "\n")
    except OSError as error:
        file.unlink(missing_ok=True)
        raise OSError(error.errno, error.strerror, str(file)) from None
    return True


def _moves(file: Path, found: Look) -> bool:
    """Whether somebody gives the file a new time, puts another one in its place, or takes it away."""
    seconds = WATCH_DAMAGED if found.holder is None else WATCH
    who = "names no process" if found.holder is None else f"names process {found.holder.pid} on {found.holder.host}"
    say(f"{file} {who}; it is watched for {seconds:.0f} s, to see whether that launch still trains", file=sys.stderr)
    end = time.monotonic() + seconds
    while _look(file) == found:
        if time.monotonic() > end:
            return False
        time.sleep(LOOK)
    return True


def _remove(file: Path, found: Look) -> bool:
    """Remove a lock that nobody holds, unless another launch has put its own there by now."""
    if file.is_symlink():
        file.unlink(missing_ok=True)
        return True
    with suppress(FileNotFoundError), file.open("rb+") as stream:
        with suppress(OSError):  # a disk that knows no such locks
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
                f"{file.parent} is trained by process {holder.pid} on {holder.host}, which did not see this launch "
                "move for a minute; this one ends",
                file=sys.stderr,
            )
            os._exit(FAILURE)
        with suppress(OSError):  # removed with the folder: training finds out by itself
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
    """None where there is no file. It is opened, since a network disk then asks its server."""
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
    """Field 22 of /proc/PID/stat (proc_pid_stat(5)); None where no such process lives."""
    try:
        state, *fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    except OSError:
        return None
    return None if state in DEAD else int(fields[18])
