"""What an error of a library or of the system says to a user, in one sentence."""

import errno
import os
import re
from collections.abc import Iterator
from pathlib import Path

# What a disk, a folder's rights or a limit of the system can do to any program that is right.
SYSTEM = {
    errno.EACCES: "change its permissions, or name another folder",
    errno.EPERM: "change its permissions, or name another folder",
    errno.EROFS: "this disk can only be read: name a folder on another one",
    errno.ENOSPC: "make room on this disk, or name a folder on another one",
    errno.EDQUOT: "make room within your quota, or name a folder on another disk",
    errno.EFBIG: "a file may not get that large here: look at `ulimit -f` and at the disk's own limit",
    errno.ENAMETOOLONG: "choose a shorter name or folder",
    errno.ENOTDIR: "a file is where a folder should be: move it away",
    errno.EMFILE: "too many files are open: raise `ulimit -n`",
    errno.EIO: "the disk or the network to it fails: look at the system's log",
    errno.ESTALE: "the disk or the network to it fails: look at the system's log",
}
# The system's own code, in the messages of libraries written in Rust and of Arrow.
CODE = re.compile(r"\(os error (\d+)\)|\[errno (\d+)\]", re.IGNORECASE)
STREAM = re.compile(r"PytorchStreamWriter failed|unexpected pos \d+ vs \d+")  # torch.save, which does not say why
# CUDA, HIP and cuBLAS, torch's allocator on a CPU, DeepSpeed's pinned buffers
NO_MEMORY = re.compile(r"out of memory|can't allocate memory|cannot allocate memory|ALLOC_FAILED", re.IGNORECASE)


def one_line(error: BaseException) -> str:
    """All that an error says, without its line breaks; with its type where that is no sentence, as of a KeyError."""
    said, kind = " ".join(str(error).split()), type(error).__name__
    return said if " " in said else ": ".join(filter(None, (kind, said)))


def system_reason(error: BaseException, where: str = "") -> str | None:
    """What the system refused, and what to do.

    Args:
        where: what was written to, for errors that do not say so.
    Returns:
        None where neither the error nor one that it was raised from is of this kind.
    """
    for cause in _causes(error):
        file = getattr(cause, "filename", None)
        if (code := _code(cause)) in SYSTEM:
            if isinstance(file, str | bytes):
                return f"{os.fsdecode(file)}: {os.strerror(code)}; {SYSTEM[code]}"
            return f"{where}{': ' if where else ''}{one_line(cause)}; {SYSTEM[code]}"
    return None


def is_no_space(error: BaseException, folder: Path) -> bool:
    """Whether a disk or a quota took no more bytes in a folder, or in one that the error does not name.

    torch's writer of files does not say why it failed.
    """
    for cause in _causes(error):
        if _code(cause) in (errno.ENOSPC, errno.EDQUOT):
            file = getattr(cause, "filename", None) or folder
            return Path(os.fsdecode(file)).absolute().is_relative_to(folder.absolute())
    return False


def _code(error: BaseException) -> int | None:
    """The system's, of an error that has or tells it."""
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
    """Whether a library has looked at what it was given and refuses it: an option, or a package that is not there.

    An error that is raised in this project's own code is a mistake of this project.
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
