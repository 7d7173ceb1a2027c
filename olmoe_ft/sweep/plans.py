"""What the points of a sweep will need: planned one after the other, printed as one table. Nothing is trained."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rich.markup import escape
from rich.table import Table

from olmoe_ft.constants import GIB
from olmoe_ft.data.terminal import Console
from olmoe_ft.recipe.errors import UserError, gathered
from olmoe_ft.sweep.points import Point
from olmoe_ft.training.files import free_space
from olmoe_ft.training.run_directory import RunDirectory

if TYPE_CHECKING:
    from olmoe_ft.planning.plan import Forecast

OWN = {True: "configs/accelerate/gpu.yaml", False: "configs/accelerate/cpu.yaml"}  # one process on a GPU, or none


@dataclass(frozen=True)
class Where:
    """The machine that all points run on, one after the other."""

    accelerate: str | None
    """Its file; None compares all shapes, for a batch system that chooses."""
    devices: int | None
    memory: float
    """Of a device, in GiB."""


@dataclass(frozen=True)
class Planned:
    """A point and its plan."""

    point: Point
    stages: "Sequence[Forecast]"

    @property
    def steps(self) -> int | None:
        """Optimizer steps; None where the rows are not known."""
        return _sum([None if one.steps is None else one.steps.count.steps for one in self.stages])

    @property
    def tokens(self) -> float | None:
        return _sum([None if one.steps is None else one.steps.tokens for one in self.stages])

    @property
    def memory(self) -> int:
        """Bytes of a device, of the stage that needs most."""
        return max(one.memory[one.machine].peak for one in self.stages)

    @property
    def disk(self) -> int | None:
        """The most bytes on the disk."""
        return _sum([None if one.space is None else one.space.peak for one in self.stages])

    @property
    def seconds(self) -> float | None:
        """Predicted, of all steps on GPUs; None on CPUs, of which no time is predicted."""
        return _sum([_seconds(one) for one in self.stages])

    @property
    def refused(self) -> str | None:
        """Why it does not fit; None where it does."""
        worst = next((one for one in self.stages if not one.fits), None)
        if worst is None:
            return None
        return f"needs {worst.memory[worst.machine].peak / GIB:.1f} GiB of a device that has {worst.budget:g}"


def here(accelerate: str | None, memory: float | None) -> Where:
    """This computer: its GPU or its CPUs, and their memory, unless other ones are given."""
    import psutil
    import torch

    gpu = torch.cuda.is_available()
    if memory is None:
        found = torch.cuda.get_device_properties(0).total_memory if gpu else psutil.virtual_memory().total
        memory = round(found / GIB, 1)
    return Where(accelerate if accelerate is not None else OWN[gpu], None, memory)


def plan_points(points: Iterable[Point], where: Where) -> list[Planned]:
    """The plan of each point. Rows that several points share are tokenized for the first of them alone.

    Raises:
        UserError: with all that is wrong with any of them, or with the run directories that are there.
    """
    messages: list[str] = []
    planned = []
    for point in points:
        with gathered(messages):
            planned.append(plan_point(point, where))
    if messages:
        raise UserError(list(dict.fromkeys(messages)))
    return planned


def plan_point(point: Point, where: Where) -> Planned:
    """The plan of one point.

    Raises:
        UserError: a file is missing or wrong, or the run directory holds the run of another recipe.
    """
    from olmoe_ft.planning.command import plan

    for stage in point.recipe.runs:
        RunDirectory(stage).check()
    found = plan(point.recipe, where.accelerate, devices=where.devices, device_memory=where.memory, advise=False)
    return Planned(point, found)


def print_plans(planned: Sequence[Planned], pace: float | None, searched: int | None = None) -> None:
    """One table of all points, with what the whole sweep comes to.

    Args:
        pace: seconds a token, as measured on points that have finished; None where none has.
        searched: where a search chooses the points: how many; then the planned ones are combinations of the ends.
    """
    console = Console()
    many = f"{len(planned)} point(s)"
    table = Table(title=many if searched is None else f"{many} at the ends of what is searched")
    table.add_column("point", overflow="fold")
    for column in ("steps", "hours", "memory\nGiB", "disk\nGiB"):
        table.add_column(column, justify="right")
    table.add_column("fits")
    for one in planned:
        table.add_row(escape(one.point.name), *_figures([one], pace), "no" if one.refused else "yes")
    taken = [one for one in planned if not one.refused]
    table.add_section()
    if searched is None:
        table.add_row("all that fit", *_figures(taken, pace), str(len(taken)), style="bold")
    else:
        table.add_row(f"{searched} points at most", *_figures(taken, pace, searched), style="bold")
    console.print(table)
    measured = pace is not None and not all(one.seconds for one in taken)
    if taken and (measured or any(one.seconds for one in taken)):
        how = "from the points that have finished" if measured else "as `olmoe-ft plan` predicts, not measured"
        console.print(f"hours: {how}; without evaluation", highlight=False)
    elif taken:
        console.print("hours: on CPUs known once the first point has finished", highlight=False)
    refused = [one for one in planned if one.refused]
    for one in refused:
        console.print(f"[red]left out:[/] {escape(f'{one.point.name} {one.refused}')}", highlight=False)
    if refused:
        console.print("`olmoe-ft plan RECIPE` with the values of a point says what would make it fit", highlight=False)
    _print_disk(taken, console)


def hours_of(one: Planned, pace: float | None) -> float | None:
    """Predicted where it is, else at the pace of points that have finished."""
    if one.seconds is not None:
        return one.seconds / 3600
    return None if pace is None or one.tokens is None else pace * one.tokens / 3600


def _figures(several: Sequence[Planned], pace: float | None, of: int | None = None) -> list[str]:
    """The figures of all of them together, or of so many points like the largest of them."""

    def together(values: Sequence[float | None]) -> float | None:
        if of is None or None in values:
            return _sum(values)
        return of * max((value for value in values if value is not None), default=0)

    hours = together([hours_of(one, pace) for one in several])
    steps, disk = together([one.steps for one in several]), together([one.disk for one in several])
    memory = max((one.memory for one in several), default=None)
    return [
        "?" if steps is None else f"{steps:,.0f}",
        "?" if hours is None else f"{hours:.3g}",
        "" if memory is None else f"{memory / GIB:.2f}",
        "?" if disk is None else f"{disk / GIB:.2f}",
    ]


def _sum(values: Sequence[Any]) -> Any:
    """None where one of them is not known."""
    return None if None in values else sum(values)


def _print_disk(taken: Sequence[Planned], console: Console) -> None:
    disk = sum(one.disk or 0 for one in taken)
    if taken and disk > (free := free_space(taken[0].point.recipe.run_dir)):
        console.print(
            f"[red]disk:[/] {free / GIB:.1f} GiB are free for up to {disk / GIB:.1f}; make room, let runs/ be a link "
            "to another disk, or keep fewer checkpoints (training.save_total_limit)",
            highlight=False,
        )


def _seconds(forecast: "Forecast") -> float | None:
    """Of all steps of a stage, on the machine that it is planned for."""
    checkpointing = bool(forecast.plan.arguments.gradient_checkpointing)
    for shape in forecast.shapes:
        if shape.machine == forecast.machine and shape.checkpointing == checkpointing:
            return None if forecast.steps is None else shape.time.seconds * forecast.steps.count.steps
    return None
