"""What a launch finds in its run directory: the newest whole checkpoint, and what is damaged, which is put aside.

Nothing that is damaged is removed; all of it is named.
"""

import shutil
from dataclasses import dataclass
from pathlib import Path

from olmoe_ft.checkpoints.manifest import damage, damages
from olmoe_ft.checkpoints.run_checkpoints import put_aside, read_object
from olmoe_ft.training.files import read_yaml, write_whole
from olmoe_ft.training.run_directory import RunDirectory


@dataclass(frozen=True)
class Found:
    """What lies in `checkpoints/`: the newest whole one, and the damaged ones that are newer, each with its damage."""

    resume: Path | None
    damaged: list[tuple[Path, str]]


def find(run: RunDirectory, needs_best: bool = False) -> Found:
    """Look for the checkpoint to go on from; changes nothing.

    Args:
        needs_best: whether the run's best checkpoint so far must be whole as well.
    """
    damaged: list[tuple[Path, str]] = []
    for checkpoint, damage_found in run.checkpoints.examined(needs_best):
        if damage_found is None:
            return Found(checkpoint, damaged)
        damaged.append((checkpoint, damage_found))
    return Found(None, damaged)


def recover(run: RunDirectory, found: Found) -> list[str]:
    """Put aside what is damaged, and drop what a killed launch left behind the checkpoint. For the first process alone.

    Returns:
        a sentence for everything that was put aside.
    """
    said = [f"{place} is no checkpoint of this run, and stays as it is" for place in run.checkpoints.of_others()]
    said += _put_end_aside(run)
    for checkpoint, what in found.damaged:
        said.append(f"{checkpoint} is damaged ({what}), kept as {put_aside(checkpoint).name}")
    if found.damaged and found.resume is not None:
        said.append(f"going on from {found.resume}")
    elif found.resume is None and run.begun():
        said.append(f"no checkpoint {'is whole' if found.damaged else 'was saved'}: starting at step 0")
    run.checkpoints.tidy()
    for leftover in run.path.glob(".base.*/"):  # of a launch that was killed while it wrote base/
        shutil.rmtree(leftover)
    return said + _restore_records(run, found.resume)


def put_misplaced_aside(run: RunDirectory) -> list[str]:
    """Files that cannot be read, and what is no file or folder where one should be; before anything is written there.

    Returns:
        a sentence for each.
    """
    texts = {run.stored: read_yaml, run.launches: read_object, run.summary: read_object}
    files = (*texts, run.metrics, run.data_report, run.routing_table, run.routing_picture, run.routing_probe)
    said = []
    for place in (*files, run.checkpoints.path, run.final):
        if not (place.exists() or place.is_symlink()):
            continue
        right = place.is_dir() if place not in files else place.is_file()
        if not right or (place in texts and texts[place](place) is None):
            said.append(f"{place} is damaged, kept as {put_aside(place).name}")
    return said


def _put_end_aside(run: RunDirectory) -> list[str]:
    """What is damaged of a run that had finished, and the end of one that goes on beyond it."""
    said = []
    if run.final.exists() and (found := damage(run.final)) is not None:
        said.append(f"{run.final} is damaged ({found}), kept as {put_aside(run.final).name}")
    if (before := read_object(run.summary)) is not None and run.lengthened():
        why = f"of-{before.get('steps')}-steps"
        for place in filter(Path.exists, (run.summary, run.final)):
            said.append(f"{place} is kept as {put_aside(place, why).name}")
    elif run.manifest.exists():
        for name, what in damages(run.path, alone=False):
            place = run.path / name
            if place.exists():
                said.append(f"{place} is damaged (it {what}), kept as {put_aside(place).name}")
            elif run.final not in place.parents or run.final.exists():  # else it has been named above
                said.append(f"{place} {what}; it is written again")
    run.manifest.unlink(missing_ok=True)
    return said


def _restore_records(run: RunDirectory, resume: Path | None) -> list[str]:
    """The records up to the checkpoint, which has a copy of them; what was recorded behind it will be again."""
    copy = resume / run.metrics.name if resume else None
    wanted = copy.read_bytes() if copy is not None and copy.exists() else b""
    found = run.metrics.read_bytes() if run.metrics.exists() else None
    said = []
    if found is not None and not found.startswith(wanted):
        said.append(f"{run.metrics} is damaged, kept as {put_aside(run.metrics).name}; {resume} has a copy")
    if found != wanted:
        write_whole(run.metrics, lambda partial: partial.write_bytes(wanted))
    return said
