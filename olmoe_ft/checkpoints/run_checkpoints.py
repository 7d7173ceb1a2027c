"""`checkpoints/` of a run: which checkpoints are complete, and where one is written before it gets its name."""

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from olmoe_ft.checkpoints.manifest import damage

NAMED = re.compile(r"checkpoint-([1-9]\d*)")  # anything else in the folder belongs to the user
KEPT_ASIDE = re.compile(r"checkpoint-\d+\.(damaged|before)(-\d+)?")  # by an earlier launch
STOOD_ON = "stood_on.json"  # in a checkpoint: what it depends on besides its weights


class RunCheckpoints:
    """Folders `checkpoint-N`, each complete; what is being written or removed is in a hidden folder beside them."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.aside = path / ".unfinished"

    def of_step(self, step: int) -> Path:
        return self.path / f"checkpoint-{step}"

    def newest_first(self) -> list[Path]:
        """All folders with a checkpoint's name, complete or not; empty if there is no folder `checkpoints/`."""
        if not self.path.is_dir():
            return []
        found = [folder for folder in self.path.iterdir() if NAMED.fullmatch(folder.name) and folder.is_dir()]
        return sorted(found, key=step_of, reverse=True)

    def examined(self, needs_best: bool = False) -> Iterator[tuple[Path, str | None]]:
        """Checkpoints from the newest on, each with its damage, down to the first one without damage.

        Args:
            needs_best: whether the run's best checkpoint so far must be undamaged too.
        """
        for checkpoint in self.newest_first():
            found = damage(checkpoint) or self._not_resumable(checkpoint, needs_best)
            yield checkpoint, found
            if found is None:
                return

    def _not_resumable(self, checkpoint: Path, needs_best: bool) -> str | None:
        state = read_object(checkpoint / "trainer_state.json")
        if state is None or state.get("global_step") != step_of(checkpoint) or stood_on(checkpoint) is None:
            return "it is not a checkpoint of that step"
        best = state.get("best_global_step")
        if needs_best and best and best != step_of(checkpoint) and (found := damage(self.of_step(best))) is not None:
            return f"the best one so far, {self.of_step(best).name}, is damaged: {found}"
        return None

    def of_others(self) -> list[Path]:
        """Files and folders that are named like a checkpoint but are none: never read, and never removed."""
        if not self.path.is_dir():
            return []
        places = [place for place in self.path.glob("checkpoint-*") if not KEPT_ASIDE.fullmatch(place.name)]
        return sorted(place for place in places if not (NAMED.fullmatch(place.name) and place.is_dir()))

    def tidy(self) -> None:
        """Remove what is left of a launch that was killed while it wrote or removed a checkpoint."""
        if self.aside.exists():
            shutil.rmtree(self.aside)

    def name(self, step: int) -> None:
        """Give a newly written checkpoint its name; if the name is taken, the older one is renamed."""
        if (place := self.of_step(step)).exists() or place.is_symlink():
            put_aside(place, "before")
        (self.aside / place.name).rename(place)
        self.tidy()

    def keep(self, limit: int | None, best: int | None) -> None:
        """Remove the oldest beyond a limit (`training.save_total_limit`), never the newest or the best one.

        Each is renamed first, so that there is never half a checkpoint under its name.
        """
        if not limit:
            return
        names = self.newest_first()
        kept = {names[0], self.of_step(best)} if best else {names[0]}
        too_many = len(names) - max(limit, len(kept & set(names)))
        for checkpoint in [name for name in reversed(names) if name not in kept][: max(0, too_many)]:
            self.aside.mkdir(exist_ok=True)
            checkpoint.rename(self.aside / f"removed-{checkpoint.name}")
        self.tidy()


def step_of(checkpoint: Path) -> int:
    match = NAMED.fullmatch(checkpoint.name)
    assert match is not None
    return int(match[1])


def stood_on(checkpoint: Path) -> dict[str, Any] | None:
    """What a checkpoint depends on; None if it does not say."""
    return read_object(checkpoint / STOOD_ON)


def read_object(file: Path) -> dict[str, Any] | None:
    """The object in a JSON file; None if the file is missing or has no object."""
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def put_aside(place: Path, why: str = "damaged") -> Path:
    """Rename a file or folder to `NAME.damaged`, or `NAME.damaged-2`, and so on; it is never overwritten."""
    number, target = 1, place.with_name(f"{place.name}.{why}")
    while target.exists() or target.is_symlink():
        number += 1
        target = place.with_name(f"{place.name}.{why}-{number}")
    return place.rename(target)
