"""What a launch finds in its run directory: the newest complete checkpoint, and damaged files, which are renamed.

Nothing damaged is ever removed, and every renamed file is reported.
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
    """The newest complete checkpoint, and the newer damaged ones, each with its damage."""

    resume: Path | None
    damaged: list[tuple[Path, str]]


def find(run: RunDirectory, needs_best: bool = False) -> Found:
    """Find the checkpoint to continue from; changes nothing.

    Args:
        needs_best: whether the run's best checkpoint so far must be undamaged too.
    """
    damaged: list[tuple[Path, str]] = []
    for checkpoint, damage_found in run.checkpoints.examined(needs_best):
        if damage_found is None:
            return Found(checkpoint, damaged)
        damaged.append((checkpoint, damage_found))
    return Found(None, damaged)


def recover(run: RunDirectory, found: Found) -> list[str]:
    """Rename what is damaged, and remove what a killed launch left after the checkpoint. For the first process only.

    Returns:
        a sentence for everything that was renamed.
    """
    said = [f"{place} is not a checkpoint of this run, so it is left alone" for place in run.checkpoints.of_others()]
    said += _put_end_aside(run)
    for checkpoint, what in found.damaged:
        said.append(f"{checkpoint} is damaged ({what}), kept as {put_aside(checkpoint).name}")
    if found.damaged and found.resume is not None:
        said.append(f"continuing from {found.resume}")
    elif found.resume is None and run.begun():
        said.append(f"no checkpoint {'is undamaged' if found.damaged else 'was saved'}: starting at step 0")
    run.checkpoints.tidy()
    half_written_bases = run.path.glob(".base.*/")  # of launches that were killed; so are weights being evaluated
    for leftover in filter(Path.exists, (*half_written_bases, run.evaluated)):
        shutil.rmtree(leftover)
    return said + _restore_records(run, found.resume)


def put_misplaced_aside(run: RunDirectory) -> list[str]:
    """Rename files that cannot be read, and anything that should be a file or folder but is not.

    This is done before anything is written there.

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
    """Rename what is damaged of a finished run, and the end of a finished run that is now lengthened."""
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
            elif run.final not in place.parents or run.final.exists():  # otherwise it was reported above
                said.append(f"{place} {what}; it is written again")
    run.manifest.unlink(missing_ok=True)
    return said


def _restore_records(run: RunDirectory, resume: Path | None) -> list[str]:
    """Restore the records up to the checkpoint from its copy; later ones will be recorded again."""
    copy = resume / run.metrics.name if resume else None
    wanted = copy.read_bytes() if copy is not None and copy.exists() else b""
    found = run.metrics.read_bytes() if run.metrics.exists() else None
    said = []
    if found is not None and not found.startswith(wanted):
        said.append(f"{run.metrics} is damaged, kept as {put_aside(run.metrics).name}; {resume} has a copy")
    if found != wanted:
        write_whole(run.metrics, lambda partial: partial.write_bytes(wanted))
    return said
