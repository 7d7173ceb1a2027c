"""Runs that are shown side by side, each with a name, and how far each has come."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from olmoe_ft.recipe import UserError
from olmoe_ft.report.blocks import Cell
from olmoe_ft.report.run_files import RunFiles, read_run, stages_of
from olmoe_ft.training.lock import refuse_second


@dataclass(frozen=True)
class Compared:
    """A run and the name that it has beside the others."""

    label: str
    run: RunFiles

    @cached_property
    def status(self) -> Cell:
        """Whether it has finished, still trains, or how its newest launch ended."""
        run, step = self.run, f"step {self.run.metrics.last_step:,}"
        if run.summary is not None:
            return Cell("finished", step, "good")
        if _trains(run.path):
            return Cell("training", step)
        ended = run.launch.get("ended")
        how = str(ended.get("how", "")) if isinstance(ended, dict) else ""
        return Cell(how or "not finished", step, "bad" if how == "failed" else "warn")


def _trains(folder: Path) -> bool:
    try:
        refuse_second(folder)
    except UserError:
        return True
    return False


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
    """The runs in these folders; of a pipeline the last stage that was trained, which is what it has come to.

    Returns:
        the runs, and a sentence for each pipeline.
    Raises:
        UserError: a folder is no run.
    """
    runs, notes = [], []
    for path in paths:
        if stages := stages_of(path):
            last = stages[-1]
            notes.append(
                f"{path} is a pipeline; its last stage is compared, {last}. Its stages side by side: "
                f"olmoe-ft compare {' '.join(map(str, stages))}"
                if len(stages) > 1
                else f"{path} is a pipeline of which one stage was trained so far; it is compared, {last}"
            )
            path = last
        runs.append(read_run(path))
    return runs, notes
