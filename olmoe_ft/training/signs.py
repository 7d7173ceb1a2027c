"""What one rank can know of another: what it says of itself, how it works, and whether it is there at all."""

import os
import socket
import sys
import threading
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import FrameType
from typing import Any

import psutil


@dataclass(frozen=True)
class Sign:
    """What a rank says of itself."""

    host: str
    computer: str | None
    """Equal where one process can look at the other, see `computer`."""
    pid: int
    begun: int
    """Collectives it has begun."""
    talks: bool
    """Whether its main thread is in one, or makes a group of ranks."""
    work: float
    """Seconds, see `work_of`."""
    place: str
    """The line of Python that its main thread is at."""

    @classmethod
    def own(cls, work: float) -> "Sign":
        return cls(socket.gethostname(), computer(), os.getpid(), _collectives_begun(), _talks(), work, _place())

    @property
    def reached(self) -> tuple[int, bool]:
        """Who has reached less than another is waited for."""
        return self.begun, self.talks

    @property
    def near(self) -> bool:
        return self.computer is not None and self.computer == computer()

    def gone(self) -> bool:
        """Whether its process has ended; False where it cannot be known."""
        if not self.near:
            return False
        try:
            return psutil.Process(self.pid).status() in (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD)
        except psutil.NoSuchProcess:
            return True


def work_of(pid: int) -> float:
    """Seconds that a process and its children have worked: on a processor, or with a disk at 2 MB a second.

    Saving, reading and compiling count; waiting in a sleep does not.
    """
    try:
        process = psutil.Process(pid)
        return sum(map(_work, [process, *process.children(recursive=True)]))
    except psutil.Error:  # it has ended, or is another user's
        return 0.0


def _work(process: psutil.Process) -> float:
    try:
        times, disk = process.cpu_times(), process.io_counters()
    except (psutil.Error, AttributeError):  # ended by now; no such counters on this system
        return 0.0
    seconds = times.user + times.system + times.children_user + times.children_system
    return float(seconds + (disk.read_bytes + disk.write_bytes) / 2e6)


def _collectives_begun() -> int:
    from torch.distributed import distributed_c10d  # not above: `lock` takes `computer` from here, before torch

    groups: list[Any] = list(distributed_c10d._world.pg_map)
    return sum(group._get_sequence_number_for_group() for group in groups)


def _talks() -> bool:
    frame: FrameType | None = _main_frame()
    while frame is not None:
        if any(part in frame.f_code.co_filename for part in ("/torch/distributed/", "/deepspeed/comm/")):
            return True
        frame = frame.f_back
    return False


def _main_frame() -> FrameType:
    return sys._current_frames()[threading.main_thread().ident or 0]


def _place() -> str:
    frame = _main_frame()
    return f"{frame.f_code.co_filename}:{frame.f_lineno} in {frame.f_code.co_name}"


@cache
def computer() -> str | None:
    """One boot of one computer, and the part of it in which process numbers are one's own (a container).

    None on a system that does not tell.
    """
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return None
