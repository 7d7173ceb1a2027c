"""How the command ends: an exit code, one sentence or one traceback, and nothing on the terminal after that."""

import atexit
import io
import json
import logging
import os
import sys
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from typing import NoReturn

from olmoe_ft.environment import set_up
from olmoe_ft.ranks import is_first, local_rank
from olmoe_ft.reasons import is_out_of_memory, one_line, system_reason
from olmoe_ft.recipe import RunError, UserError
from olmoe_ft.stopping import TRY_AGAIN, Stopped, asked, end_in_order, exit_code, hear_no_more, leave_in_turn

MISTAKE, FAILURE = 2, 1  # exit codes
farewells: list[Callable[[int], None]] = []  # called with the exit code, after everything else


def program() -> NoReturn:
    """The command `olmoe-ft`, as a process."""
    set_up()  # before torch is imported
    code = FAILURE
    # Handlers run last in, first out, so this one runs after those of all libraries. Next the interpreter would clean
    # up all imports for most of a second, while libraries print warnings about what is still alive.
    leave = atexit.register(lambda: _leave(code))
    os.register_at_fork(after_in_child=lambda: atexit.unregister(leave))
    end_in_order()
    from olmoe_ft.cli import main

    try:
        main()
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 0 if end.code is None else FAILURE
    except BaseException as error:
        if asked() and lost_another(error):  # the other one was asked to stop too, and has ended
            code = exit_code()
            sys.exit(code)
        leave_in_turn()
        _wait_for_turn(mistake=False)
        tell_launcher(traceback.format_exception_only(error)[-1].strip())
        from olmoe_ft.data.terminal import say

        say(traceback.format_exc().rstrip(), file=sys.stderr)
    sys.exit(code)


def _leave(code: int) -> NoReturn:
    hear_no_more()  # the process ends anyway
    for stream in filter(None, (sys.stdout, sys.stderr)):
        try:
            stream.flush()
        except OSError:  # nobody reads the stream any more, or its disk is full
            code = code or FAILURE
    for tell in farewells:
        tell(code)
    os._exit(code)


def let_no_text_fail() -> None:
    """Replace characters that the terminal cannot show, and print to nowhere if it is closed.

    Lines that libraries log are escaped like our own.
    """
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:  # closed by the shell
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))
        elif isinstance(stream, io.TextIOWrapper) and stream.errors == "strict":
            stream.reconfigure(errors="replace")
    logging.setLogRecordFactory(_PrintableRecord)


class _PrintableRecord(logging.LogRecord):
    """A line of a library's log; it may quote texts from others."""

    def getMessage(self) -> str:
        from olmoe_ft.data.terminal import printable

        return printable(super().getMessage())


def exit_with_reason(error: Exception) -> None:
    """Say in one sentence why the command ends, and end it; return if the error needs its traceback.

    Raises:
        SystemExit: with 2 if the user's input is wrong, 1 if something else ended a run, 75 if a run was asked to stop
            and was saved.
    """
    from olmoe_ft.data.terminal import say

    if isinstance(error, UserError | RunError):
        sentence, code = str(error), _code(error)
    elif is_out_of_memory(error):
        sentence, code = f"out of memory ({one_line(error)}); close other programs, or use a larger machine", FAILURE
    elif (reason := system_reason(error)) is not None:
        sentence, code = reason, MISTAKE
    else:
        return
    _wait_for_turn(mistake=True)
    tell_launcher(sentence)
    if code != TRY_AGAIN or is_first():  # all ranks stop for the same request
        say(sentence, file=sys.stderr)
    sys.exit(code)


def _code(error: UserError | RunError) -> int:
    return TRY_AGAIN if isinstance(error, Stopped) else MISTAKE if isinstance(error, UserError) else FAILURE


def tell_launcher(sentence: str) -> None:
    """Write the sentence where torch's launcher of several processes looks for it, so that it is in its report.

    The format is that of `torch.distributed.elastic.multiprocessing.errors.ProcessFailure`.
    """
    if (file := os.environ.get("TORCHELASTIC_ERROR_FILE")) is not None:
        from olmoe_ft.data.terminal import printable

        # only the first: what fails after it fails because of it
        with suppress(OSError), open(file, "x", encoding="utf-8") as stream:
            json.dump({"message": printable(sentence), "timestamp": int(time.time())}, stream)


def _of_several() -> bool:
    return int(os.environ.get("WORLD_SIZE", "1")) > 1


def lost_another(error: BaseException) -> bool:
    """Whether a process waited for another one of its launch that has ended."""
    places = (frame.filename for frame in traceback.extract_tb(error.__traceback__))
    return _of_several() and isinstance(error, RuntimeError) and any("/torch/distributed/" in place for place in places)


def _wait_for_turn(mistake: bool) -> None:
    """Let one process of a launch report: the launcher ends the others when the first has ended.

    Usually all find the same mistake. If one fails alone, the others fail because it is missing, which says less. One
    that was killed reports nothing: within these seconds the launcher finds it, and gives that as the reason.
    """
    if _of_several():
        time.sleep((0 if mistake else 4) + 0.5 * local_rank())
