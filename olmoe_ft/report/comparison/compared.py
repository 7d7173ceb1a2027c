"""Runs that are shown side by side, each with a name, and how far each has come."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from olmoe_ft.recipe import UserError
from olmoe_ft.report.files.run_files import RunFiles, read_run, stages_of
from olmoe_ft.report.files.state import How, State, state_of
from olmoe_ft.report.page.blocks import Cell, Tone

TONES: dict[How, Tone] = {"finished": "good", "training": "", "failed": "bad", "killed": "warn", "stopped": "warn"}


@dataclass(frozen=True)
class Compared:
    """A run and the name that it has beside the others."""

    label: str
    run: RunFiles

    @cached_property
    def state(self) -> State:
        """How it has ended, or that it has not."""
        return state_of(self.run)

    @property
    def status(self) -> Cell:
        """The same for people."""
        return Cell(self.state.how, f"step {self.state.step:,}", TONES.get(self.state.how, ""))


def labelled(runs: Sequence[RunFiles]) -> list[Compared]:
    """Each run by its path below the innermost folder that they have in common.

    Raises:
        UserError: there are fewer than two, or one of them twice.
    """
    if len(runs) < 2:
        raise UserError(f"compare: found {len(runs)} run; allowed: two or more; name another run directory")
    places = [run.path.resolve() for run in runs]
    for number, place in enumerate(places):
        if place in places[:number]:
            raise UserError(f"compare: found {runs[number].path} twice; allowed: each run once; leave one out")
    common = common_folder(places)
    return [Compared(os.path.relpath(place, common), run) for place, run in zip(places, runs, strict=True)]


def common_folder(places: Sequence[Path]) -> Path:
    """The innermost folder that holds all of these."""
    return Path(os.path.commonpath([place.resolve().parent for place in places]))


def runs_at(paths: Sequence[Path]) -> tuple[list[RunFiles], list[str]]:
    """The runs in these folders. A sweep is all of its points, and a pipeline is the last stage that was trained, which
    is what it has come to.

    Returns:
        the runs, and a sentence for each sweep and pipeline.
    Raises:
        UserError: a folder is no run.
    """
    runs, notes = [], []
    for path in paths:
        points = sorted(folder for folder in path.iterdir() if _holds_run(folder)) if _is_sweep(path) else []
        if points:
            notes.append(f"{path} is a sweep; its points are compared: {', '.join(point.name for point in points)}")
        elif stages := stages_of(path):
            notes.append(
                f"{path} is a pipeline; its last stage is compared, {stages[-1]}. Its stages side by side: "
                f"olmoe-ft report {path}"
            )
        runs += [read_run(_last_stage(folder)) for folder in points or [path]]
    return runs, notes


def _is_sweep(path: Path) -> bool:
    return path.is_dir() and (path / "sweep.json").is_file()


def _holds_run(folder: Path) -> bool:
    return (_last_stage(folder) / "recipe.yaml").is_file()


def _last_stage(folder: Path) -> Path:
    return [folder, *stages_of(folder)][-1]
