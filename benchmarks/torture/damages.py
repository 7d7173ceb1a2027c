"""What disks, people and other programs do to the files of a run that was stopped, or has finished."""

import os
import random
import re
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from torture.configurations import FILES, Configuration

LEFT_ALONE = ("wandb",)  # folders of other programs' files, which nothing reads again


def _halve(path: Path, draw: random.Random) -> None:
    os.truncate(path, path.stat().st_size // 2)


def _empty(path: Path, draw: random.Random) -> None:
    os.truncate(path, 0)


def _delete(path: Path, draw: random.Random) -> None:
    path.unlink()


def _flip(path: Path, draw: random.Random) -> None:
    content = bytearray(path.read_bytes())
    content[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
    path.write_bytes(content)


def _overwrite(path: Path, draw: random.Random) -> None:
    path.write_bytes(draw.randbytes(path.stat().st_size))


def _make_folder(path: Path, draw: random.Random) -> None:
    path.unlink()
    path.mkdir()


def _make_link(path: Path, draw: random.Random) -> None:
    path.unlink()
    path.symlink_to("nowhere")


def _stray_folder(path: Path, draw: random.Random) -> None:
    path.mkdir()


def _stray_copy(path: Path, draw: random.Random) -> None:
    shutil.copytree(min(path.parent.glob("checkpoint-[0-9]*")), path)


def _stray_file(path: Path, draw: random.Random) -> None:
    path.touch()


FILE_WAYS: dict[str, Callable[[Path, random.Random], None]] = {
    "cut to half": _halve,
    "emptied": _empty,
    "deleted": _delete,
    "one bit flipped": _flip,
    "random bytes": _overwrite,
    "a folder in its place": _make_folder,
    "a link to nowhere in its place": _make_link,
}
STRAYS = {
    "checkpoint-best": _stray_folder,
    "checkpoint-4-backup": _stray_copy,
    "checkpoint-99": _stray_file,
    "checkpoint-100": _stray_folder,
    "checkpoint-x": _stray_copy,
}
STRAY = "a stray file or folder"


@dataclass(frozen=True)
class Damage:
    """One damage of one file.

    Args:
        finished: whether of a run that has finished, rather than of one that was killed half way.
        file: in the workspace.
        matters: whether the run goes on from it, so that it has to be named.
    """

    configuration: Configuration
    finished: bool
    file: Path
    way: str
    matters: bool
    seed: int

    @property
    def kinds(self) -> tuple[tuple[str, str], ...]:
        return (("damage", self.way), ("damaged", place_of(self.file, self.configuration)))

    def __str__(self) -> str:
        state = "finished" if self.finished else "stopped"
        return f"{self.configuration.name}, {state}: {self.file}: {self.way}"

    def do(self, workspace: Path) -> None:
        act = STRAYS[self.file.name] if self.way == STRAY else FILE_WAYS[self.way]
        act(workspace / self.file, random.Random(self.seed))


def place_of(file: Path, configuration: Configuration) -> str:
    """Which of the table's places a file of a run is in."""
    run = next(run for run in configuration.runs if file.is_relative_to(run))
    earlier = "" if run == configuration.runs[-1] else " of an earlier stage"
    inside = file.relative_to(run)
    match inside.parts:
        case ("checkpoints", _):
            return "a file or folder beside the checkpoints" + earlier
        case ("checkpoints", *_):
            return "a file of a checkpoint" + earlier
        case (folder, _, *_):
            return f"a file in {folder}/{earlier}"
    return f"{inside}{earlier}"


def choose_damages(
    count: int, stopped: dict[Configuration, Path], finished: dict[Configuration, Path], seed: int
) -> Iterator[Damage]:
    """So many damages: configurations in turn, of each the kind of file and the way that were tried least so far.

    Args:
        stopped: workspaces of runs that were killed half way, of all configurations to torture.
        finished: of runs that have finished.
    """
    draw = random.Random(seed)
    pool = list(stopped)
    draw.shuffle(pool)
    tried: Counter[object] = Counter()
    for number in range(count):
        configuration = pool[number % len(pool)]
        over = number // len(pool) % 5 == 4  # a fifth
        workspace = (finished if over else stopped)[configuration]
        possible = list(_damages(workspace, configuration, over))
        if not over and draw.random() < 0.8:  # the older ones are only read where the newest is damaged
            newest = _newest(workspace, configuration)
            possible = [(file, way) for file, way in possible if _step_folder(file) in (None, newest)]
        draw.shuffle(possible)
        file, way = min(possible, key=lambda pair: (tried[_kind(pair[0]), pair[1]], tried[_kind(pair[0])]))
        tried.update([(_kind(file), way), _kind(file)])
        matters = over or _step_folder(file) == _newest(workspace, configuration)
        yield Damage(configuration, over, file, way, matters, draw.randrange(2**32))


def _damages(workspace: Path, configuration: Configuration, over: bool) -> Iterator[tuple[Path, str]]:
    for run in configuration.runs:
        for path in sorted((workspace / run).rglob("*")):
            file = path.relative_to(workspace)
            if not path.is_file() or path.is_symlink() or file.relative_to(run).parts[0] in LEFT_ALONE:
                continue
            if over and "checkpoints" in file.parts:
                continue  # nothing reads them again
            for way in FILE_WAYS:
                if path.stat().st_size or way not in ("cut to half", "emptied", "one bit flipped", "random bytes"):
                    yield file, way
    if not over and any((workspace / configuration.runs[-1] / "checkpoints").glob("checkpoint-[0-9]*")):
        for name in STRAYS:
            yield configuration.runs[-1] / "checkpoints" / name, STRAY


def _kind(file: Path) -> str:
    """A name for the same file of any checkpoint, rank and stage."""
    return re.sub(r"\d+", "N", "/".join(part for part in file.parts if part not in FILES))


def _step_folder(file: Path) -> Path | None:
    """The checkpoint that a file is in."""
    return next((folder for folder in file.parents if folder.parent.name == "checkpoints"), None)


def _newest(workspace: Path, configuration: Configuration) -> Path:
    """The checkpoint that a stopped run goes on from."""
    folders = (workspace / configuration.runs[-1] / "checkpoints").glob("checkpoint-*")
    whole = [folder for folder in folders if (folder / "trainer_state.json").exists()]
    return max(whole, key=lambda folder: int(folder.name.rpartition("-")[2])).relative_to(workspace)
