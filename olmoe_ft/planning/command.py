"""From a recipe to its plans, returned or printed. The files are looked at before the trainers are imported."""

from typing import TYPE_CHECKING

from olmoe_ft.planning.inputs import plan_inputs
from olmoe_ft.planning.machine import Machine, check_machine, read_machine
from olmoe_ft.recipe import Recipe
from olmoe_ft.recipe.precision import check_optimizer

if TYPE_CHECKING:
    from olmoe_ft.planning.plan import Forecast

MEMORY = 80.0  # GiB of a device


def plan(
    recipe: Recipe,
    accelerate: str | None = None,
    *,
    devices: int | None = None,
    device_memory: float = MEMORY,
    tflops: float | None = None,
    bandwidth: float | None = None,
    advise: bool = True,
) -> list["Forecast"]:
    """What a recipe, or each stage of a pipeline, will need; loads no weights, trains nothing, prints nothing.

    Each `Forecast` holds the largest micro-batch, the optimizer steps and tokens, the bytes on the disk and on a device
    of several machines, the machines from the fastest, and what to change where a stage does not fit; its `plan` holds
    the recipe, the network's configuration, TRL's arguments, and the rows with their audit.

    Args:
        accelerate: accelerate's file of the machine, e.g. configs/accelerate/zero3.yaml; None compares all shapes.
        devices: that train together; None for 8, of a small network 1.
        device_memory: of a device, in GiB.
        tflops: TFLOP/s a GPU is taken to reach; None for 45% of an H100's.
        bandwidth: GB/s between GPUs; None for 300 in a computer and 50 between several.
        advise: whether to look for changes that make a stage fit, which takes longer than all else.
    Raises:
        UserError: a file is missing or wrong, or the recipe cannot run on this machine.
    """
    machine = _machine(recipe, accelerate, devices)
    read = plan_inputs(recipe)
    from olmoe_ft.planning.plan import forecast, machines_for, make_plan
    from olmoe_ft.planning.time import Rates

    rates = Rates.of(tflops, bandwidth)
    plans = [make_plan(one) for one in read]
    return [forecast(one, machines_for(one, machine, devices), device_memory, rates, advise) for one in plans]


def print_plans(
    recipe: Recipe,
    accelerate: str | None,
    devices: int | None,
    device_memory: float,
    tflops: float | None,
    bandwidth: float | None,
) -> None:
    """Print what `plan` returns, a stage at a time. The arguments are those of `plan`."""
    machine = _machine(recipe, accelerate, devices)
    read = plan_inputs(recipe)
    from olmoe_ft.planning.plan import machines_for, make_plan
    from olmoe_ft.planning.printed import print_plan
    from olmoe_ft.planning.time import Rates

    rates = Rates.of(tflops, bandwidth)
    for one in map(make_plan, read):
        print_plan(one, machines_for(one, machine, devices), device_memory, rates)


def _machine(recipe: Recipe, accelerate: str | None, devices: int | None) -> Machine | None:
    """The machine that was asked for, before the rows are read; else it is asked of each shape that is planned for."""
    if accelerate is None:
        return None
    machine = read_machine(accelerate, devices)
    for stage in recipe.runs:
        check_machine(stage, machine, accelerate)
        check_optimizer(stage, machine.deepspeed, accelerate)
    return machine
