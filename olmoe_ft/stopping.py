"""A request to stop (SIGTERM) ends the command in order: a launcher's, whose other process failed, or a batch system's.

The main thread gets a `SystemExit` at its next line of Python. Where it waits in C++ for a process that is gone there
is no next line: then another thread does what must not be left undone, and ends the process.
"""

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

PATIENCE = 3.0  # seconds for the main thread to come to its next line
_heard = threading.Event()
_undone: list[Callable[[], None]] = []


def end_in_order() -> None:
    """From here on this process does so. Its children, such as a data loader's workers, end as usual."""
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    signal.signal(signal.SIGTERM, _stop)
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    os.register_at_fork(after_in_child=_as_usual)
    threading.Thread(target=_watch, args=(reader,), daemon=True).start()


@contextmanager
def done_at_a_stop(act: Callable[[], None]) -> Iterator[None]:
    """Within the block, have this done in another thread where the main one cannot do it."""
    _undone.append(act)
    try:
        yield
    finally:
        _undone.remove(act)


@contextmanager
def undisturbed() -> Iterator[None]:
    """Ignore requests to stop within the block: what is half removed would be in the way of the next launch."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _stop(number: int, frame: Any) -> NoReturn:
    _heard.set()
    if os.environ.get("WORLD_SIZE", "1") == "1":  # of several, the one that failed has said why
        print(f"stopped by {signal.Signals(number).name}", file=sys.stderr)
    sys.exit(128 + number)


def _watch(reader: int) -> None:
    while os.read(reader, 1)[0] != signal.SIGTERM:
        pass
    if not _heard.wait(PATIENCE):
        try:
            for act in _undone:
                act()
        finally:
            os._exit(128 + signal.SIGTERM)


def _as_usual() -> None:
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
