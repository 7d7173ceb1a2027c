"""Machines with and without checkpointing, sorted by speed, and the fastest that fits."""

from collections.abc import Sequence
from dataclasses import dataclass

from rich import box
from rich.markup import escape
from rich.table import Table

from olmoe_ft.constants import GIB
from olmoe_ft.data.terminal import Console
from olmoe_ft.planning.machine import Machine
from olmoe_ft.planning.memory import DeviceMemory, device_memory
from olmoe_ft.planning.step_memory import StepMemory
from olmoe_ft.planning.time import Rates, StepTime, Work, step_time


@dataclass(frozen=True)
class Shape:
    """A machine, with or without checkpointing."""

    machine: Machine
    checkpointing: bool
    memory: DeviceMemory
    time: StepTime

    def __str__(self) -> str:
        return f"{self.machine.name} x {self.machine.processes} {_with(self.checkpointing)} checkpointing"


def shapes_by_speed(step: StepMemory, machines: Sequence[Machine], work: Work, rates: Rates) -> list[Shape]:
    """Every machine with and without checkpointing, by tokens per second of all its devices; equal ones by memory.

    Args:
        step: of one GPU, with the recipe's setting of checkpointing.
    """
    shapes = [
        Shape(machine, one.recomputes, device_memory(one, machine, work.micro_batches > 1), time)
        for machine in machines
        for one in (step, step.otherwise())
        for time in (step_time(one, machine, work, rates),)
    ]
    return sorted(shapes, key=lambda shape: (-shape.time.tokens_per_second, shape.memory.peak))


def print_shapes(
    console: Console, shapes: Sequence[Shape], budget: float, rates: Rates, chosen: Machine, checkpointing: bool
) -> None:
    """Print the table of shapes, its assumptions, and what to launch for the fastest that fits.

    Args:
        shapes: the fastest first.
        budget: memory of a device, in GiB.
        chosen, checkpointing: the shape that the plan is made for.
    """
    table = Table(title="Shapes, from the fastest: predicted seconds of a step", box=box.SIMPLE, padding=0)
    table.add_column("")
    for name in ("check-\npointing", "compute", "traffic", "opti-\nmizer", "step", "tokens\n/second", "peak\nGiB"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("fits")
    for shape in shapes:
        time = shape.time
        parts = (f"{part:.3f}" for part in (time.compute, time.traffic, time.optimizer, time.seconds))
        table.add_row(
            f"{escape(shape.machine.name)} x {shape.machine.processes}",
            _with(shape.checkpointing),
            *parts,
            f"{time.tokens_per_second:,.0f}",
            f"{shape.memory.peak / GIB:.1f}",
            "yes" if shape.memory.fits(budget) else "no",
        )
    console.print(table)
    console.print(f"assumed, not measured: {_assumed(rates, shapes)}", highlight=False)
    fastest = next((shape for shape in shapes if shape.memory.fits(budget)), None)
    if fastest is not None:
        text = f"fastest that fits: {fastest}, predicted {fastest.time.seconds:.3g} s a step"
        console.print(text + _launch(fastest, chosen, checkpointing), highlight=False, markup=False)


def _assumed(rates: Rates, shapes: Sequence[Shape]) -> str:
    between = sorted({rates.between(shape.machine) / 1e9 for shape in shapes})
    return (
        f"{rates.flops / 1e12:g} TFLOP/s on a device (--tflops), {' or '.join(f'{one:g}' for one in between)} GB/s "
        f"between devices (--bandwidth), {rates.host / 1e9:g} GB/s to the host, {rates.memory / 1e12:g} TB/s in a "
        "device's memory, nothing in parallel"
    )


def _launch(shape: Shape, chosen: Machine, checkpointing: bool) -> str:
    """What to add to the command for a shape that is not the planned one."""
    words = []
    if shape.machine != chosen:
        words.append(f"configs/accelerate/{shape.machine.name}.yaml")
        if shape.machine.processes > 1:
            words.append(f"--num_processes {shape.machine.processes}")
    if shape.checkpointing != checkpointing:
        words.append(f"training.gradient_checkpointing={str(shape.checkpointing).lower()}")
    return f" ({', '.join(words)})" if words else ", as planned"


def _with(checkpointing: bool) -> str:
    return "with" if checkpointing else "without"
