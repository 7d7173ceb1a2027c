"""Pickles in a checkpoint may contain tensors and plain values, but must not run code.

A pickle names the functions that it calls when it is read. transformers reads its files with torch's restricted reader,
which calls only a few known functions, but DeepSpeed reads its shards with the unrestricted one. So every file is
checked first, and then DeepSpeed gets the restricted reader too.
"""

import importlib
import os
import sys
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch.serialization import get_unsafe_globals_in_checkpoint

from olmoe_ft.reasons import one_line
from olmoe_ft.recipe import UserError

ENDINGS = (".pt", ".pth", ".bin", ".pkl", ".pickle", ".ckpt")
NEVER_READ = ("training_args.bin",)  # transformers writes it for people to read
ZIP, PICKLE = b"PK\x03\x04", b"\x80"  # the first bytes of files by torch.save and pickle.dump
DEEPSPEED = (  # objects in its shards besides tensors: the place of a weight, a loss scale of 1, the stage of ZeRO
    "deepspeed.utils.tensor_fragment.fragment_address",
    "deepspeed.runtime.fp16.loss_scaler.LossScaler",
    "deepspeed.runtime.zero.config.ZeroStageEnum",
)
HARMLESS = {
    *DEEPSPEED,
    # in a random state; transformers lets its reader call them
    "numpy._core.multiarray._reconstruct",
    "numpy.ndarray",
    "numpy.dtype",
    "numpy.dtypes.UInt32DType",
    # in optimizer states of torchao, which lets torch's reader call them
    "torchao.optim.subclass_4bit.OptimState4bit",
    "torchao.optim.subclass_8bit.OptimState8bit",
}
FORCED = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"  # makes every torch.load a restricted one, whatever its caller asks for


def refuse_code(folder: Path) -> None:
    """Check every pickle below a folder without loading it.

    Raises:
        UserError: naming each file that calls a function that no checkpoint needs, or that torch.save did not write.
    """
    places = (Path(parent, name) for parent, _, names in os.walk(folder, followlinks=True) for name in names)
    files = sorted(place for place in places if place.is_file() and place.name not in NEVER_READ)
    messages = [f"{file}: the file {reason}" for file in files if (reason := _why_not(file)) is not None]
    if messages:
        advice = "it could run code, so it is not loaded; if you trust its author, start with `--accept code`"
        raise UserError([f"{message}; {advice}" for message in messages])


@contextmanager
def without_code(trusted: bool = False) -> Iterator[None]:
    """Within the block every pickle is read with torch's restricted reader, which accepts DeepSpeed's shards.

    Args:
        trusted: the user has accepted that code may run; then nothing is restricted.
    """
    if trusted:
        yield
        return
    before = os.environ.get(FORCED)
    os.environ[FORCED] = "1"  # also for child processes
    try:
        # if DeepSpeed is not imported, nothing reads its shards
        shards: list[Any] = [_named(name) for name in DEEPSPEED if "deepspeed" in sys.modules]
        with torch.serialization.safe_globals(shards):
            yield
    finally:
        if before is None:
            del os.environ[FORCED]
        else:
            os.environ[FORCED] = before


def _why_not(file: Path) -> str | None:
    with file.open("rb") as stream:
        start = stream.read(len(ZIP))
    if start != ZIP:
        is_pickle = file.suffix in ENDINGS or start.startswith(PICKLE)
        return "is a pickle that torch.save did not write" if is_pickle else None
    try:
        with zipfile.ZipFile(file) as archive:
            entries = archive.infolist()
        if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
            return "is a compressed archive, which torch.save does not write"
        pickles = [entry.filename for entry in entries if entry.filename.endswith(".pkl")]
        if [name.partition("/")[2] for name in pickles] != ["data.pkl"]:
            found_here = f"with the pickles {', '.join(pickles)}" if pickles else "without a pickle"
            return f"is an archive {found_here}, but torch.save writes one data.pkl"
        found = set(get_unsafe_globals_in_checkpoint(file)) - HARMLESS
    except Exception as error:  # a hostile file can make torch or zipfile raise anything
        return f"cannot be checked ({one_line(error)[:200]})"
    return f"calls {', '.join(sorted(found)[:5])}" if found else None


def _named(name: str) -> Any:
    module, _, attribute = name.rpartition(".")
    return getattr(importlib.import_module(module), attribute)
