"""Run code that others have written in a separate process, with limits on time and memory for each item.

An endless loop or text cannot be stopped from within Python: `10 ** 10 ** 9` is one instruction. So the operating
system ends a process that takes too long, and refuses it more memory.
"""

import json
import os
import resource
import signal
import traceback
from collections.abc import Callable, Iterable, Iterator
from multiprocessing.connection import Connection, Pipe
from typing import Any, TypeVar

import psutil

SECONDS = 5.0  # of CPU time, for an item
MEMORY = 1 << 30  # bytes, beyond what this process uses
AT_ONCE = 50  # answers that are sent together
END = None
TOO_MUCH_MEMORY = f"needs more than {MEMORY >> 30} GiB of memory"

T = TypeVar("T")


class TooMuchError(Exception):
    """The work takes too long or too much memory. The message continues a sentence about the work."""


def confined(work: Callable[[T], Any], items: Iterable[T]) -> Iterator[Any]:
    """The results of `work` for each item, in order; they must be JSON values.

    Raises:
        TooMuchError: an item takes more than SECONDS or MEMORY, or its process is ended from outside.
        RuntimeError: `work` raised an unexpected error; its traceback is printed.
    """
    reader, writer = Pipe(duplex=False)
    child = _forked(lambda: _work(work, items, writer))
    writer.close()
    try:
        while (answers := json.loads(reader.recv_bytes())) != END:
            if isinstance(answers, str):
                raise TooMuchError(answers)
            yield from answers
    except EOFError:
        _, status = os.waitpid(child, 0)
        child = 0
        if not os.WIFSIGNALED(status):
            raise RuntimeError("the separate process failed; its traceback is above") from None
        number = os.WTERMSIG(status)
        took = (
            f"takes longer than {SECONDS:g} s" if number == signal.SIGPROF else f"ended its process (signal {number})"
        )
        raise TooMuchError(took) from None
    finally:
        reader.close()
        if child:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)


def _forked(act: Callable[[], None]) -> int:
    """Fork a copy of this process that runs `act` and exits. Returns its process id."""
    before = os.environ.get("TOKENIZERS_PARALLELISM")
    os.environ["TOKENIZERS_PARALLELISM"] = (
        "false"  # otherwise `tokenizers` warns about threads, which the copy does not start
    )
    try:
        if child := os.fork():
            return child
        code = 1
        try:
            act()
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    finally:
        if before is None:
            del os.environ["TOKENIZERS_PARALLELISM"]
        else:
            os.environ["TOKENIZERS_PARALLELISM"] = before


def _work(work: Callable[[T], Any], items: Iterable[T], writer: Connection) -> None:
    _, most = resource.getrlimit(resource.RLIMIT_AS)
    allowed = psutil.Process().memory_info().vms + MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (allowed if most == resource.RLIM_INFINITY else min(allowed, most), most))
    signal.signal(signal.SIGPROF, signal.SIG_DFL)  # ends the process, whatever it is doing
    answers: list[Any] = []
    try:
        for item in items:
            signal.setitimer(signal.ITIMER_PROF, SECONDS)
            answers.append(work(item))
            if len(answers) == AT_ONCE:
                _send(answers, writer)
                answers = []
        _send(answers, writer)
        _send(END, writer)
    except TooMuchError as error:
        _send(str(error), writer)
    except MemoryError:
        answers = []
        _send(TOO_MUCH_MEMORY, writer)


def _send(value: Any, writer: Connection) -> None:
    writer.send_bytes(json.dumps(value).encode())
