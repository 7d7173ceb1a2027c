"""What one rank can know about another: what it reports, how much it works, and whether it still runs."""

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
    """What a rank reports about itself."""

    host: str
    computer: str | None
    """Equal if one process can see the other, see `computer`."""
    pid: int
    begun: int
    """The number of collectives it has begun."""
    talks: bool
    """Whether its main thread is in one, or creates a group of ranks."""
    work: float
    """Seconds of work, see `work_of`."""
    place: str
    """The line of Python where its main thread is."""

    @classmethod
    def own(cls, work: float) -> "Sign":
        return cls(socket.gethostname(), computer(), os.getpid(), _collectives_begun(), _talks(), work, _place())

    @property
    def reached(self) -> tuple[int, bool]:
        """How far it is; others wait for a rank that has reached less."""
        return self.begun, self.talks

    @property
    def near(self) -> bool:
        return self.computer is not None and self.computer == computer()

    def gone(self) -> bool:
        """Whether its process has ended; False if that is unknown."""
        if not self.near:
            return False
        try:
            return psutil.Process(self.pid).status() in (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD)
        except psutil.NoSuchProcess:
            return True


def work_of(pid: int) -> float:
    """Seconds that a process and its children have worked: on a processor, or with a disk, counted as 2 MB per second.

    Saving, reading and compiling count; sleeping does not.
    """
    try:
        process = psutil.Process(pid)
        return sum(map(_work, [process, *process.children(recursive=True)]))
    except psutil.Error:  # it has ended, or belongs to another user
        return 0.0


def _work(process: psutil.Process) -> float:
    try:
        times, disk = process.cpu_times(), process.io_counters()
    except (psutil.Error, AttributeError):  # it has ended, or the system has no such counters
        return 0.0
    seconds = times.user + times.system + times.children_user + times.children_system
    return float(seconds + (disk.read_bytes + disk.write_bytes) / 2e6)


def _collectives_begun() -> int:
    # not at the top: `lock` imports `computer` from here before torch is loaded
    from torch.distributed import distributed_c10d

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
    """An identifier of one boot of one computer, and of the container in which process numbers are valid.

    None on a system that does not tell.
    """
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return None
