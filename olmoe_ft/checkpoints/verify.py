"""`olmoe-ft verify`: check that the files of a run are complete and unchanged."""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import yaml

from olmoe_ft.checkpoints.manifest import NAME, damage
from olmoe_ft.checkpoints.run_checkpoints import RunCheckpoints
from olmoe_ft.recipe.errors import UserError


class Verified(NamedTuple):
    place: Path
    damage: str | None
    """None if every byte is as it was written."""
    note: str = ""


def verify(path: str) -> list[Verified]:
    """Check every folder and file of a run (for a pipeline, of all its stages), or one checkpoint folder.

    Raises:
        UserError: there is no run or checkpoint at the path.
    """
    folder = Path(path)
    if not folder.is_dir():
        raise UserError(f"{path}: there is no such folder; name a run directory (runs/<name>) or a checkpoint in it")
    if (folder / NAME).exists() and not _is_run(folder):
        return [Verified(folder, damage(folder))]
    runs = [folder, *sorted(stage for stage in folder.iterdir() if stage.is_dir())]
    found = [verified for run in runs if _is_run(run) for verified in _verify_run(run)]
    if not found:
        raise UserError(
            f"{path}: found neither a run (recipe.yaml, checkpoints/) nor a {NAME}, without which a checkpoint of "
            "another "
            "program cannot be checked; name a run directory (runs/<name>) or a checkpoint in it"
        )
    return found


def refuse_damage(found: list[Verified]) -> None:
    """End the command where something is damaged.

    Raises:
        UserError: there is damage among what was found.
    """
    if damaged := sum(item.damage is not None for item in found):
        raise UserError(
            f"{damaged} of {len(found)} damaged. Of a run, the same `olmoe-ft train` puts them aside and continues "
            "from what is whole; write any other folder again"
        )


def _is_run(folder: Path) -> bool:
    return (folder / "recipe.yaml").exists() or (folder / "checkpoints").is_dir()


def _verify_run(run: Path) -> Iterator[Verified]:
    yield Verified(run / "recipe.yaml", None if _is_yaml(run / "recipe.yaml") else "it cannot be read")
    if (base := run / "base").exists():
        yield Verified(base, damage(base))
    checkpoints = RunCheckpoints(run / "checkpoints")
    for checkpoint in reversed(checkpoints.newest_first()):
        yield Verified(checkpoint, damage(checkpoint))
    summary = run / "summary.json"
    if not summary.exists():
        yield Verified(
            run / "final", None, "there is no such folder: the run has not finished; start it again to finish it"
        )
        return
    yield Verified(run / NAME, damage(run, alone=False))
    yield Verified(run / "final", damage(run / "final"))


def _is_yaml(file: Path) -> bool:
    try:
        return isinstance(yaml.safe_load(file.read_text(encoding="utf-8")), dict)
    except (OSError, ValueError, yaml.YAMLError, RecursionError):
        return False
