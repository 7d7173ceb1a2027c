"""Errors of libraries and of the system, as one sentence for the user."""

import errno
import os
import re
from collections.abc import Iterator
from pathlib import Path

# Errors that a disk, a folder's permissions or a limit of the system can cause in any correct program.
SYSTEM = {
    errno.EACCES: "change its permissions, or name another folder",
    errno.EPERM: "change its permissions, or name another folder",
    errno.EROFS: "this disk is read-only; name a folder on another one",
    errno.ENOSPC: "free some space on this disk, or name a folder on another one",
    errno.EDQUOT: "free some of your quota, or name a folder on another disk",
    errno.EFBIG: "files cannot be that large here; check `ulimit -f` and the limit of the disk",
    errno.ENAMETOOLONG: "choose a shorter name or folder",
    errno.ENOTDIR: "there is a file where a folder should be; move it away",
    errno.EMFILE: "too many files are open; raise `ulimit -n`",
    errno.EIO: "the disk or its network connection is failing; check the system's log",
    errno.ESTALE: "the disk or its network connection is failing; check the system's log",
}
# The system's error code, in messages of Arrow and of libraries written in Rust.
CODE = re.compile(r"\(os error (\d+)\)|\[errno (\d+)\]", re.IGNORECASE)
STREAM = re.compile(r"PytorchStreamWriter failed|unexpected pos \d+ vs \d+")  # from torch.save, which does not say why
# CUDA, HIP and cuBLAS, torch's allocator on a CPU, DeepSpeed's pinned buffers
NO_MEMORY = re.compile(r"out of memory|can't allocate memory|cannot allocate memory|ALLOC_FAILED", re.IGNORECASE)


def one_line(error: BaseException) -> str:
    """The whole message of an error on one line; with its type if it is a single word, as for a KeyError."""
    message, kind = " ".join(str(error).split()), type(error).__name__
    return message if " " in message else ": ".join(filter(None, (kind, message)))


def system_reason(error: BaseException, where: str = "") -> str | None:
    """What the system refused, and what to do.

    Args:
        where: what was written to, for errors that do not say so.
    Returns:
        None if neither the error nor one of its causes is of this kind.
    """
    for cause in _causes(error):
        file = getattr(cause, "filename", None)
        if (code := _code(cause)) in SYSTEM:
            if isinstance(file, str | bytes):
                return f"{os.fsdecode(file)}: {os.strerror(code)}; {SYSTEM[code]}"
            return f"{where}{': ' if where else ''}{one_line(cause)}; {SYSTEM[code]}"
    return None


def is_no_space(error: BaseException, folder: Path) -> bool:
    """Whether a disk or quota was full when a file in this folder was written, or one that the error does not name.

    torch's file writer does not say why it failed.
    """
    for cause in _causes(error):
        if _code(cause) in (errno.ENOSPC, errno.EDQUOT):
            file = getattr(cause, "filename", None) or folder
            return Path(os.fsdecode(file)).absolute().is_relative_to(folder.absolute())
    return False


def _code(error: BaseException) -> int | None:
    """The system's error code, from an attribute or the message of an error; None if there is none."""
    if (code := getattr(error, "errno", None)) is not None:
        return code
    if found := CODE.search(str(error)):
        return int(found[1] or found[2])
    return errno.ENOSPC if STREAM.search(str(error)) else None


def is_out_of_memory(error: BaseException) -> bool:
    """Whether a device or the computer had no memory left."""
    return any(
        isinstance(cause, MemoryError) or (isinstance(cause, RuntimeError) and NO_MEMORY.search(str(cause)))
        for cause in _causes(error)
    )


def is_refused_option(error: BaseException) -> bool:
    """Whether a library refuses what it was given: an option, or because of a missing package.

    An error raised in this project's own code is a bug of this project.
    """
    if not isinstance(error, ValueError | TypeError | NotImplementedError | ImportError):
        return False
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return trace is not None and not _ours(trace.tb_frame.f_globals.get("__name__", ""))


def _ours(module: str) -> bool:
    return module.partition(".")[0] == __name__.partition(".")[0]


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__
