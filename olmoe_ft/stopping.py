"""What a request to stop does: SIGTERM, SIGINT, SIGUSR1, SIGHUP, or the end of the launcher. See docs/signals.md.

Between two optimizer steps a run can be saved, so while it trains a request is only noted, and the trainer asks for it
at the end of each step (`olmoe_ft.training.stop`). At any other time the command ends in order: the main thread gets a
`SystemExit` at its next line of Python. Where it waits in C++ for a process that is gone there is no next line: then
the listening thread does what must not be left undone, and ends the process. A second request ends it at once.
"""

import os
import select
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, NoReturn

from olmoe_ft.ranks import is_first
from olmoe_ft.recipe import RunError

TRY_AGAIN = 75  # the exit code of a run that was saved and can go on: EX_TEMPFAIL of sysexits.h
PATIENCE = 3.0  # seconds for the main thread to come to its next line
REQUESTS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGHUP)
LAUNCHER_ENDED = 65  # beside the numbers of signals, which end at 64
TICK = 0.5  # seconds
AGAIN = 0.05  # seconds; less than a second request is apart from the first
TRIES = 3  # to reach the launcher's store

_undone: list[Callable[[], None]] = []
_leaving = threading.Event()  # the main thread is on its way out


class Stopped(RunError):
    """A run that was asked to stop, and was saved: the same command goes on with it. Exit code 75."""


class _Request:
    """What this process was asked first; the listening thread writes it."""

    code = 0
    since = 0.0  # time.monotonic()
    noted_only = False  # while training: whoever takes the steps asks for it
    raised = False  # as SystemExit in the main thread, which is done once
    said = False

    @classmethod
    def again_at(cls) -> float:
        """From then on another one is a second one. A launcher passes on what the terminal, or the batch system, has
        sent to its processes already; `timeout` sends its signal twice."""
        return cls.since + (1.5 if launched() else 0.2)


def end_in_order() -> None:
    """From here on this process does so. Its children, such as a data loader's workers, end as usual."""
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    # torchrun hears, and passes on, what nohup or a shell's & had told it to ignore
    heard = {number for number in REQUESTS if _by_torchrun() or signal.getsignal(number) != signal.SIG_IGN}
    for number in heard:
        signal.signal(number, _in_main_thread)
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    os.register_at_fork(after_in_child=lambda: _as_usual(heard))
    sys.unraisablehook = _said_again(sys.unraisablehook)
    threading.Thread(target=_listen, args=(reader, heard), name="requests to stop", daemon=True).start()


def _said_again(otherwise: Callable[[Any], Any]) -> Callable[[Any], None]:
    """Where a `SystemExit` comes into what cannot be left by one (`__del__`, a callback of a weak reference) Python
    prints and forgets it: it comes again a moment later."""

    def hook(lost: Any) -> None:
        if not (_Request.raised and isinstance(lost.exc_value, SystemExit)):
            otherwise(lost)
            return
        _Request.raised = False
        _leaving.clear()
        threading.Timer(AGAIN, os.kill, (os.getpid(), signal.SIGTERM)).start()

    return hook


def asked() -> int:
    """What this process was asked to stop by: the number of a signal, `LAUNCHER_ENDED`, 0 for nothing."""
    return _Request.code


def exit_code() -> int:
    """Of a process that ends for what it was asked: that of the signal, of SIGTERM where its launcher has gone."""
    return 128 + (signal.SIGTERM if asked() == LAUNCHER_ENDED else asked())


def name_of(code: int) -> str:
    return "the end of its launcher" if code == LAUNCHER_ENDED else signal.Signals(code).name


def launched() -> bool:
    """Whether `accelerate launch` or torchrun started this process, rather than a shell."""
    return _by_torchrun() or "ACCELERATE_MIXED_PRECISION" in os.environ


def _by_torchrun() -> bool:
    return "TORCHELASTIC_RUN_ID" in os.environ


def only_note() -> None:
    """Until `at_steps` ends a request is noted; who takes the steps asks for it."""
    _Request.noted_only = True


@contextmanager
def at_steps() -> Iterator[None]:
    """Around all steps: behind them a request ends the command in order, as it does before them.

    Raises:
        SystemExit: one was noted behind the last step.
    """
    try:
        yield
    except BaseException:
        leave_in_turn()
        raise
    finally:
        _Request.noted_only = False
    if asked():
        _leave()


def leave_in_turn() -> None:
    """The main thread has an error to say: what was asked before does not end it sooner."""
    if asked():
        _leaving.set()


def leaving() -> bool:
    """Whether the main thread is on its way out, and will say itself why."""
    return _leaving.is_set()


@contextmanager
def done_at_a_stop(act: Callable[[], None]) -> Iterator[None]:
    """Within the block, have this done in another thread where the main one cannot do it."""
    _undone.append(act)
    try:
        yield
    finally:
        _undone.remove(act)


def hear_no_more() -> dict[int, Any]:
    """Ignore requests to stop from here on; returns the handlers there were. For the main thread."""
    _leaving.set()
    return {number: signal.signal(number, signal.SIG_IGN) for number in REQUESTS}


@contextmanager
def undisturbed() -> Iterator[None]:
    """Ignore requests to stop within the block: what is half removed would be in the way of the next launch."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = hear_no_more()
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def end_at_once(code: int) -> NoReturn:
    """End this process from another thread than its main one, with what must not be left undone."""
    try:
        for act in reversed(_undone):
            act()
    finally:
        os._exit(code)


def _in_main_thread(number: int, frame: Any) -> None:
    if not _Request.noted_only and not _Request.raised:
        _Request.code = _Request.code or number  # the listening thread may be a moment behind
        _leave()


def _leave() -> None:
    _Request.raised = True
    _leaving.set()
    if os.environ.get("WORLD_SIZE", "1") == "1" and not _Request.said:  # of several, the one that failed has said why
        _Request.said = True
        _say(f"stopped by {name_of(asked())}")
    sys.exit(exit_code())


def _listen(reader: int, heard: set[signal.Signals]) -> None:
    launcher = os.getppid() if launched() else None
    if _is_orphan():
        launcher = None
        _hear(LAUNCHER_ENDED)
    while True:
        if select.select([reader], [], [], TICK)[0]:
            for number in os.read(reader, 64):
                if number in heard:
                    _hear(number)
        if launcher is not None and os.getppid() != launcher:
            launcher = None
            _hear(LAUNCHER_ENDED)
        late = time.monotonic() > _Request.since + PATIENCE
        if asked() and late and not _Request.noted_only and not _leaving.is_set():
            end_at_once(exit_code())


def _is_orphan() -> bool:
    """Whether torchrun's launcher ended before this process could look for it: nobody keeps the store of its ranks any
    more, for which they would wait half an hour."""
    if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True":
        return False
    address = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    for _ in range(TRIES):
        try:
            socket.create_connection(address, timeout=5).close()
        except ConnectionRefusedError:
            time.sleep(1)
        except OSError:  # of the network, which may come
            return False
        else:
            return False
    return True


def _hear(code: int) -> None:
    if not _Request.since:
        noted = _Request.noted_only
        if noted and is_first():
            _say(_announcement(code))  # before anything else can be said about it
        _Request.code, _Request.since = code, time.monotonic()
        if code == LAUNCHER_ENDED and not noted:
            os.kill(os.getpid(), signal.SIGTERM)  # which wakes the main thread, as a signal does
    elif code != LAUNCHER_ENDED and time.monotonic() > _Request.again_at():
        _say(f"{name_of(code)} after {name_of(asked())}: ended at once; what was being written does not count")
        end_at_once(128 + code)


def _announcement(code: int) -> str:
    sentence = f"{name_of(code)}: the run is saved at the end of this step, and stops"
    if code == LAUNCHER_ENDED:
        return sentence
    sentence += "; a second one ends it at once"
    if _by_torchrun():
        seconds = os.environ.get("TORCH_ELASTIC_SHUTDOWN_TIMEOUT", "30")
        sentence += f". Its launcher, if it was asked too, waits {seconds} s (TORCH_ELASTIC_SHUTDOWN_TIMEOUT)"
    return sentence


def _say(sentence: str) -> None:
    with suppress(OSError):  # the terminal may have gone with what stopped us
        sys.stderr.write(sentence + "\n")  # in one piece: another thread may be saying something
        sys.stderr.flush()


def _as_usual(heard: set[signal.Signals]) -> None:
    signal.set_wakeup_fd(-1)
    for number in heard:
        signal.signal(number, signal.SIG_DFL)
    if _Request.noted_only:  # a data loader's worker: the launcher signals the whole group, and the step needs it
        os.setpgid(0, 0)
