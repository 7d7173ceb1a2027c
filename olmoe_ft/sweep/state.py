"""`runs/<sweep>/sweep.json`: what a sweep has come to, by which the same command goes on where it was."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from olmoe_ft.checkpoints.run_checkpoints import read_object
from olmoe_ft.recipe import UserError
from olmoe_ft.recipe.load import parse_override
from olmoe_ft.training.files import to_json, write_text

NAME = "sweep.json"
State = Literal["planned", "running", "finished", "diverged", "collapsed", "pruned", "failed", "refused"]
STOPPED = ("diverged", "collapsed", "pruned")  # by the sweep; they are not taken up again


@dataclass
class Entry:
    """A point in `sweep.json`."""

    name: str
    overrides: list[str]
    state: State = "planned"
    reason: str | None = None
    """Why it is in this state, in a sentence."""
    step: int | None = None
    """The optimizer step at which it was stopped."""


@dataclass
class SweepState:
    """All of a sweep. Written whole after every change."""

    folder: Path
    recipe: str
    fixed: list[str]
    """Overrides that all points share."""
    axes: list[str] = field(default_factory=list)
    """What was varied, as it was typed, by all commands so far."""
    search: str = "grid"
    seed: int = 0
    by: str | None = None
    """The metric that the points are sorted by."""
    points: list[Entry] = field(default_factory=list)

    def entry(self, name: str, overrides: Sequence[str]) -> Entry:
        """The point of that name, which is added where there is none.

        Raises:
            UserError: another point has this name.
        """
        found = next((one for one in self.points if one.name == name), None)
        if found is None:
            self.points.append(found := Entry(name, list(overrides)))
        elif _values(found.overrides) != _values(overrides):
            raise UserError(
                f"{self.folder / NAME}: the point {name} is that of {' '.join(found.overrides)}, and not of "
                f"{' '.join(overrides)}; give this sweep another --name"
            )
        return found

    def write(self) -> None:
        content: dict[str, Any] = {key: value for key, value in asdict(self).items() if key != "folder"}
        write_text(self.folder / NAME, to_json(content, indent=2, ensure_ascii=False) + "\n")


def open_state(
    folder: Path, recipe: str, fixed: Sequence[str], axes: Sequence[str], search: str, seed: int
) -> SweepState:
    """The state of a sweep that was begun, or that of a new one. Another recipe is refused; other axes add points.

    Raises:
        UserError: a sweep of this name has another recipe or other values for all points, or its file is damaged.
    """
    found = read_state(folder)
    if found is None:
        return SweepState(folder, recipe, list(fixed), list(axes), search, seed)
    if found.recipe != recipe or _values(found.fixed) != _values(fixed):
        raise UserError(
            f"{folder / NAME}: found a sweep of {' '.join([found.recipe, *found.fixed])}, and this is one of "
            f"{' '.join([recipe, *fixed])}; give this one another --name"
        )
    found.axes = list(dict.fromkeys([*found.axes, *axes]))
    found.search, found.seed = search, seed
    return found


def _values(overrides: Sequence[str]) -> dict[str, Any]:
    """Without regard to their order, and to how a number is written."""
    return {one.key: one.value for one in map(parse_override, overrides)}


def read_state(folder: Path) -> SweepState | None:
    """What a sweep has written; None where there is none.

    Raises:
        UserError: the file is damaged.
    """
    file = folder / NAME
    if not file.exists():
        return None
    found = read_object(file)
    try:
        if found is None:
            raise ValueError
        points = [Entry(**one) for one in found.pop("points")]
        if any(one.state not in get_args(State) for one in points):
            raise ValueError
        return SweepState(folder=folder, points=points, **found)
    except (TypeError, ValueError, KeyError):
        raise UserError(
            f"{file}: the file is damaged; move it away: the same command finds the runs that are there"
        ) from None
