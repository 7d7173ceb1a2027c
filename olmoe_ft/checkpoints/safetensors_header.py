"""The header of a safetensors file, and where the bytes of each tensor are. Reads no weights.

The file may come from anybody: its header may name bytes that are not there, or be gigabytes of JSON. The library
checks all of that (https://huggingface.co/docs/safetensors, "Format"), as long as the header is not too long.
"""

import json
from pathlib import Path
from typing import NamedTuple

from safetensors import SafetensorError, safe_open

from olmoe_ft.recipe import UserError

LARGEST = 1 << 24  # bytes; OLMoE's own, with 3,000 tensors, is 400 KB


class Stored(NamedTuple):
    """A tensor in a file: its type and shape as the header has them, its first byte and its size in bytes."""

    dtype: str
    shape: list[int]
    start: int
    size: int


def read_header(file: Path) -> dict[str, Stored]:
    """The tensors of a file by their names.

    Raises:
        UserError: the header is invalid or very long, or does not match the file's size.
    """
    with file.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        if length > min(LARGEST, file.stat().st_size):
            raise _refusal(
                file, "its header is longer than the file" if length <= LARGEST else "its header is too long"
            )
        text = stream.read(length)
    try:
        with safe_open(file, "np"):
            header = json.loads(text)
    except (SafetensorError, ValueError, RecursionError) as error:
        raise _refusal(file, str(error)[:200]) from None
    header.pop("__metadata__", None)
    tensors = {}
    for name, entry in header.items():
        begin, end = entry["data_offsets"]
        tensors[name] = Stored(entry["dtype"], entry["shape"], 8 + length + begin, end - begin)
    return tensors


def _refusal(file: Path, reason: str) -> UserError:
    return UserError(f"{file}: not a complete safetensors file ({reason}); download or write the checkpoint again")
