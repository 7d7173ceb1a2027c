"""`olmoe-ft sweep`: plan, then run or print, then compare."""

import shlex
import sys
from collections.abc import Sequence
from contextlib import nullcontext, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from olmoe_ft.data.terminal import say
from olmoe_ft.recipe import RunError, UserError, load_recipe
from olmoe_ft.recipe.rules import NAME
from olmoe_ft.stopping import at_steps, only_note
from olmoe_ft.sweep.axes import Space, drawn, grid_size, parse_space, some_of_grid
from olmoe_ft.sweep.plans import Planned, Where, here, plan_points, print_plans
from olmoe_ft.sweep.points import Points
from olmoe_ft.sweep.result import show
from olmoe_ft.sweep.run import Runner, pace
from olmoe_ft.sweep.search import Searched, check_installed, metric_of
from olmoe_ft.sweep.state import SweepState, open_state
from olmoe_ft.training.lock import only_launch

Search = Literal["grid", "random", "tpe"]
CORNERS = 8  # combinations of the ends of all axes that are planned before a search
SLURM_MEMORY = 80.0  # GiB of a device, as `olmoe-ft plan` assumes


@dataclass(frozen=True)
class Asked:
    """What the command line asks for."""

    recipe: str
    settings: tuple[str, ...]
    """`key=v1,v2`, `key=lo..hi:log:5` and `key=value`."""
    name: str | None = None
    search: str = "grid"
    count: int | None = None
    """`--max`."""
    seed: int = 0
    by: str | None = None
    accelerate: str | None = None
    device_memory: float | None = None
    keep_diverged: bool = False
    plan_only: bool = False
    slurm: tuple[str, ...] | None = None
    """Options of `olmoe-ft launch --slurm`, as they are typed; None to run here."""
    devices: int | None = None
    """That train together in a job of SLURM."""


def sweep(asked: Asked) -> None:
    """Plan the points of a sweep; then run them here one after the other, or print them as jobs of SLURM.

    Raises:
        UserError: something in the settings, the recipe or its files is wrong, or no point fits.
        Stopped: it was asked to stop; the same command goes on.
        RunError: a point has failed, or none has finished.
    """
    space = _space(asked)
    name = _name(asked, space)
    state = _state(asked, space, name)
    maker = Points(asked.recipe, space.fixed, space.axes, name)
    where = _where(asked)
    # the lines for SLURM can be written into a file
    with nullcontext() if asked.slurm is None else redirect_stdout(sys.stderr):
        planned = _plan(asked, space, state, maker, where)
    if asked.plan_only:
        return
    if asked.slurm is not None:
        _print_jobs(asked, space, planned)
        return
    _run(asked, state, maker, planned, where)


def _plan(asked: Asked, space: Space, state: SweepState, maker: Points, where: Where) -> list[Planned]:
    points, same = maker.make_all(_combinations(asked, space))
    for sentence in same:
        say(sentence)
    searched = asked.count if asked.search == "tpe" else None  # then these are not the points themselves
    if searched is None:
        for point in points:
            state.entry(point.name, point.overrides)
    planned = plan_points(points, where)
    print_plans(planned, pace(planned), searched)
    if all(one.refused for one in planned):
        raise UserError("no point fits; change the recipe, or give --accelerate or --device-memory")
    return planned


def _space(asked: Asked) -> Space:
    if asked.search not in get_args(Search):
        raise UserError(f"--search: found {asked.search}; allowed: {', '.join(get_args(Search))}")
    searches = asked.search != "grid"
    if searches and asked.count is None:
        raise UserError(f"--search {asked.search}: needs the number of points; add --max 20")
    if asked.search == "tpe":
        check_installed()
        if asked.slurm is not None:
            raise UserError("--search tpe: each point follows from the results before it; leave out --slurm")
    return parse_space(asked.settings, searches)


def _name(asked: Asked, space: Space) -> str:
    if asked.name is None:
        return f"{load_recipe(asked.recipe, space.fixed).name}-sweep".replace("/", "-")
    if NAME.fullmatch(asked.name) is None:
        raise UserError(
            f"--name: found {asked.name}; it names a folder in runs/; allowed: letters, digits, `.`, `_`, `-`"
        )
    return asked.name


def _state(asked: Asked, space: Space, name: str) -> SweepState:
    keys = {axis.key for axis in space.axes}
    varied = [text for text in asked.settings if text.partition("=")[0] in keys]
    state = open_state(Path("runs") / name, asked.recipe, space.fixed, varied, asked.search, asked.seed)
    state.by = asked.by
    return state


def _combinations(asked: Asked, space: Space) -> list[tuple[str, ...]]:
    if asked.search == "random":
        assert asked.count is not None
        return drawn(space, asked.count, asked.seed)
    if asked.search == "tpe":
        return some_of_grid(space, CORNERS, asked.seed)
    size = grid_size(space)
    if asked.count is not None and asked.count < size:
        say(f"{asked.count} of the grid's {size} points, drawn with seed {asked.seed} (--max, --seed)")
    return some_of_grid(space, asked.count, asked.seed)


def _where(asked: Asked) -> Where:
    if asked.slurm is not None:
        return Where(asked.accelerate, asked.devices, asked.device_memory or SLURM_MEMORY)
    return here(asked.accelerate, asked.device_memory)


def _print_jobs(asked: Asked, space: Space, planned: Sequence[Planned]) -> None:
    assert asked.slurm is not None
    for one in planned:
        if not one.refused:
            point = one.point
            overrides = [*space.fixed, *point.overrides, f"name={point.recipe.name}"]
            words = ["olmoe-ft", "launch", "--slurm", asked.recipe, *overrides, *asked.slurm]
            print(shlex.join(words))


def _run(asked: Asked, state: SweepState, maker: Points, planned: Sequence[Planned], where: Where) -> None:
    metric = metric_of(asked.by, planned[0].point.recipe) if asked.search == "tpe" else asked.by
    runner = Runner(state, asked.accelerate, metric, asked.keep_diverged)
    with only_launch(state.folder):
        only_note()  # a request to stop is passed on to the run, which saves
        with at_steps():
            if asked.search == "tpe":
                assert asked.count is not None and metric is not None
                entries = Searched(runner, maker, where, asked.count, metric).run()
            else:
                entries = runner.run_all(planned)
    show(state.points, metric, state.folder)
    failed = [one.name for one in entries if one.state == "failed"]
    if failed:
        raise RunError(
            f"{len(failed)} of {len(entries)} point(s) failed ({', '.join(failed)}); the same command tries again"
        )
    if not any(one.state == "finished" for one in entries):
        raise RunError("no point has finished; see the reasons above")
