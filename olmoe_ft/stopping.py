"""What a request to stop does: SIGTERM, SIGINT, SIGUSR1, SIGHUP, or the end of the launcher. See docs/signals.md.

A run can be saved between two optimizer steps. So during training a request is only noted, and the trainer checks for
it at the end of each step (`olmoe_ft.training.stop`). At any other time the command ends in order: the main thread gets
a `SystemExit` at its next line of Python. If it is waiting in C++ for a process that has ended, there is no next line.
Then the listening thread does the necessary clean-up and ends the process. A second request ends it at once.
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

TRY_AGAIN = 75  # the exit code of a run that was saved and can continue: EX_TEMPFAIL of sysexits.h
PATIENCE = 3.0  # seconds for the main thread to reach its next line
REQUESTS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGHUP)
LAUNCHER_ENDED = 65  # not the number of a signal, which end at 64
TICK = 0.5  # seconds
AGAIN = 0.05  # seconds; less than the time between a first and a second request
TRIES = 3  # attempts to reach the launcher's store
OF_SWEEP = "OLMOE_FT_SWEEP"  # set in the environment of a process that a sweep has started

_undone: list[Callable[[], None]] = []
_leaving = threading.Event()  # the main thread is ending


class Stopped(RunError):
    """A run that was asked to stop, and was saved: the same command continues it. Exit code 75."""


class _Request:
    """The first request to this process; the listening thread writes it."""

    code = 0
    since = 0.0  # time.monotonic()
    noted_only = False  # while training: the trainer checks for it
    raised = False  # as SystemExit in the main thread, which happens once
    said = False

    @classmethod
    def again_at(cls) -> float:
        """From this time on another request counts as a second one. A launcher passes on signals that the terminal or
        the batch system has already sent to its processes, and `timeout` sends its signal twice."""
        return cls.since + (1.5 if launched() else 0.2)


def end_in_order() -> None:
    """From now on this process ends in order when asked. Its children, such as data loader workers, end as usual."""
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    # torchrun handles and passes on signals that nohup or a shell's & had set to be ignored
    heard = {number for number in REQUESTS if _by_torchrun() or signal.getsignal(number) != signal.SIG_IGN}
    for number in heard:
        signal.signal(number, _in_main_thread)
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    os.register_at_fork(after_in_child=lambda: _as_usual(heard))
    sys.unraisablehook = _said_again(sys.unraisablehook)
    threading.Thread(target=_listen, args=(reader, heard), name="requests to stop", daemon=True).start()


def _said_again(otherwise: Callable[[Any], Any]) -> Callable[[Any], None]:
    """Python prints and drops a `SystemExit` in places that it cannot leave by one (`__del__`, a callback of a weak
    reference). This hook sends the request again a moment later."""

    def hook(lost: Any) -> None:
        if not (_Request.raised and isinstance(lost.exc_value, SystemExit)):
            otherwise(lost)
            return
        _Request.raised = False
        _leaving.clear()
        threading.Timer(AGAIN, os.kill, (os.getpid(), signal.SIGTERM)).start()

    return hook


def asked() -> int:
    """What asked this process to stop: the number of a signal, `LAUNCHER_ENDED`, or 0 for nothing."""
    return _Request.code


def exit_code() -> int:
    """The exit code for the request: that of the signal, or of SIGTERM if the launcher has ended."""
    return 128 + (signal.SIGTERM if asked() == LAUNCHER_ENDED else asked())


def name_of(code: int) -> str:
    return "the end of its launcher" if code == LAUNCHER_ENDED else signal.Signals(code).name


def launched() -> bool:
    """Whether `accelerate launch`, torchrun or a sweep started this process, rather than a shell."""
    return _by_torchrun() or not {"ACCELERATE_MIXED_PRECISION", OF_SWEEP}.isdisjoint(os.environ)


def _by_torchrun() -> bool:
    return "TORCHELASTIC_RUN_ID" in os.environ


def only_note() -> None:
    """Only note requests until `at_steps` ends; the trainer checks for them."""
    _Request.noted_only = True


@contextmanager
def at_steps() -> Iterator[None]:
    """Around all steps: after them a request ends the command in order again, as before them.

    Raises:
        SystemExit: a request was noted after the last step.
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
    """The main thread has an error to report; an earlier request must not end it before that."""
    if asked():
        _leaving.set()


def leaving() -> bool:
    """Whether the main thread is ending, and will say why itself."""
    return _leaving.is_set()


@contextmanager
def done_at_a_stop(act: Callable[[], None]) -> Iterator[None]:
    """Within the block, let another thread do this clean-up if the main thread cannot."""
    _undone.append(act)
    try:
        yield
    finally:
        _undone.remove(act)


def hear_no_more() -> dict[int, Any]:
    """Ignore requests to stop from now on; returns the previous handlers. For the main thread."""
    _leaving.set()
    return {number: signal.signal(number, signal.SIG_IGN) for number in REQUESTS}


@contextmanager
def undisturbed() -> Iterator[None]:
    """Ignore requests to stop within the block: half-removed files would be in the way of the next launch."""
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
    """End this process from a thread that is not the main one, after the necessary clean-up."""
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
    # of several processes, the one that failed has said why
    if os.environ.get("WORLD_SIZE", "1") == "1" and not _Request.said:
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
    """Whether torchrun's launcher ended before this process could check for it. Then the store of the ranks is gone,
    and they would wait for it for half an hour."""
    if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True":
        return False
    address = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    for _ in range(TRIES):
        try:
            socket.create_connection(address, timeout=5).close()
        except ConnectionRefusedError:
            time.sleep(1)
        except OSError:  # a network problem, which may go away
            return False
        else:
            return False
    return True


def _hear(code: int) -> None:
    if not _Request.since:
        noted = _Request.noted_only
        if noted and is_first():
            _say(_announcement(code))  # before any other message about it
        _Request.code, _Request.since = code, time.monotonic()
        if code == LAUNCHER_ENDED and not noted:
            os.kill(os.getpid(), signal.SIGTERM)  # wakes the main thread, as a signal does
    elif code != LAUNCHER_ENDED and time.monotonic() > _Request.again_at():
        _say(
            f"{name_of(code)} after {name_of(asked())}: ended at once; files that were being written are incomplete "
            "and will be ignored"
        )
        end_at_once(128 + code)


def _announcement(code: int) -> str:
    sentence = f"{name_of(code)}: the run will be saved at the end of this step, and then stop"
    if code == LAUNCHER_ENDED:
        return sentence
    sentence += "; a second signal ends it at once"
    if _by_torchrun():
        seconds = os.environ.get("TORCH_ELASTIC_SHUTDOWN_TIMEOUT", "30")
        sentence += f". If its launcher got the signal too, it waits {seconds} s (TORCH_ELASTIC_SHUTDOWN_TIMEOUT)"
    return sentence


def _say(sentence: str) -> None:
    with suppress(OSError):  # the terminal may be gone too
        sys.stderr.write(sentence + "\n")  # in one piece: another thread may be printing
        sys.stderr.flush()


def _as_usual(heard: set[signal.Signals]) -> None:
    signal.set_wakeup_fd(-1)
    for number in heard:
        signal.signal(number, signal.SIG_DFL)
    if (
        _Request.noted_only
    ):  # a data loader's worker: the launcher signals the whole group, but the step needs the worker
        os.setpgid(0, 0)
