"""`manifest.json`: a list of a folder's files, to find one that is missing, cut off or changed.

A checkpoint, a run's `final/` and its `base/` each have one, written last. A folder of another program has none.
"""

import json
import os
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path
from typing import Any

import xxhash

from olmoe_ft.recipe.errors import UserError

NAME = "manifest.json"
CARD = "README.md"  # for people, who may write in it: neither listed nor checked
FORMAT = 1
LOADED = (".safetensors", ".bin", ".pt", ".pth")  # a library may load such a file just because it is there
THREADS = min(8, os.cpu_count() or 1)
PIECE, READ = 2**25, 2**18  # bytes: the piece of a file for one thread, and a single read of it

Entries = dict[str, dict[str, Any]]


def files_of(folder: Path) -> list[str]:
    """Every file below a folder, by its path in it, with slashes; without the manifest itself and the card."""
    files = (
        file.relative_to(folder).as_posix() for file in folder.rglob("*") if not file.is_dir() or file.is_symlink()
    )
    return sorted(file for file in files if file not in (NAME, CARD))


def entries(folder: Path, files: Iterable[str]) -> Entries:
    """Size and checksum of some files.

    xxh3 (128 bits, Collet 2019) reads faster than a disk writes. It finds damage; it is not a signature. The checksum
    of a file is that of the checksums of its pieces, which several threads read.
    """
    sizes = {file: (folder / file).stat().st_size for file in files}
    pieces = [(file, start) for file, size in sizes.items() for start in range(0, size, PIECE)]
    with ThreadPoolExecutor(THREADS) as pool:
        read = list(pool.map(lambda piece: _checksum(folder / piece[0], piece[1]), pieces))
    joined = {file: xxhash.xxh3_128() for file in sizes}
    for (file, _), checksum in zip(pieces, read, strict=True):
        joined[file].update(checksum)
    return {file: {"bytes": sizes[file], "xxh3_128": joined[file].hexdigest()} for file in sizes}


def _checksum(file: Path, start: int) -> bytes:
    """The checksum of the piece that begins at `start`."""
    checksum, left, buffer = xxhash.xxh3_128(), PIECE, memoryview(bytearray(READ))
    with file.open("rb", buffering=0) as stream:
        stream.seek(start)
        while left and (count := stream.readinto(buffer)):
            checksum.update(buffer[:count])
            left -= count
    return checksum.digest()


def write_manifest(folder: Path, found: Entries | None = None) -> None:
    """Write the manifest, as the last file of the folder.

    Args:
        found: the entries of all files, if several processes have computed them; otherwise they are computed here.
    """
    found = entries(folder, files_of(folder)) if found is None else found
    (folder / NAME).write_text(json.dumps({"format": FORMAT, "files": found}, indent=1) + "\n", encoding="utf-8")


def damage(folder: Path, alone: bool = True) -> str | None:
    """The first damage in a folder that should have a manifest; None if all files are as they were written.

    Args:
        alone: whether any other file of weights in the folder counts as damage.
    """
    if not folder.is_dir():
        return "there is no such folder"
    return next((f"{file} {what}" for file, what in damages(folder, alone)), None)


def damages(folder: Path, alone: bool = True) -> Iterator[tuple[str, str]]:
    """Each file of a folder that is not as it was written, and what is wrong with it; arguments as for `damage`."""
    try:
        content = json.loads((folder / NAME).read_text(encoding="utf-8"))
        wanted = {str(file): (entry["bytes"], entry["xxh3_128"]) for file, entry in content["files"].items()}
        known = content["format"] == FORMAT
    except FileNotFoundError:
        yield NAME, "is missing"
        return
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        known, wanted = False, {}
    if not known or not wanted:
        yield NAME, "cannot be read"
        return
    wanted.pop(CARD, None)  # listed by earlier versions
    whole = []
    for file, (size, _) in wanted.items():
        if not (folder / file).is_file():
            yield file, "is missing"
        elif (found := (folder / file).stat().st_size) != size:
            yield file, f"has {found:,} bytes instead of {size:,}"
        else:
            whole.append(file)
    if alone:
        added = [file for file in files_of(folder) if file not in wanted and file.endswith(LOADED)]
        yield from ((file, "was not written with it") for file in added)
    try:
        now = entries(folder, whole)
    except OSError as error:
        yield os.path.relpath(os.fsdecode(error.filename), folder), f"cannot be read ({error.strerror})"
        return
    changed = [file for file in whole if now[file]["xxh3_128"] != wanted[file][1]]
    yield from ((file, "has changed since it was written") for file in changed)


def refuse_damaged(folder: str) -> None:
    """Refuse a folder whose files do not match its manifest; a folder of another program has no manifest.

    Raises:
        UserError: naming the file.
    """
    manifest = Path(folder) / NAME
    if manifest.exists() and (found := _damage_once(folder, manifest.stat().st_mtime_ns)) is not None:
        raise UserError(
            f"{folder}: the folder is damaged: {found}; restore the file or write the folder again. If you have "
            "changed it "
            f"yourself, remove {manifest}"
        )


@lru_cache(maxsize=16)
def _damage_once(folder: str, written: int) -> str | None:
    """`damage`, cached, because a command checks the same folder several times."""
    return damage(Path(folder))
