"""What a recipe needs of the computers of a batch system: time, memory, and how long a stop takes."""

from dataclasses import dataclass, replace

from olmoe_ft.planning.inputs import PlanInputs
from olmoe_ft.planning.machine import Machine, check_machine, read_machine
from olmoe_ft.planning.measured_step import measure_step
from olmoe_ft.planning.memory import GIB, DeviceMemory, device_memory
from olmoe_ft.planning.plan import Plan, largest_batch, machines_for, make_plan
from olmoe_ft.planning.schedule import schedule
from olmoe_ft.planning.step_memory import StepMemory
from olmoe_ft.planning.time import Rates, step_time, work_of
from olmoe_ft.recipe import UserError
from olmoe_ft.recipe.precision import check_optimizer
from olmoe_ft.training.space import folders_of

PROCESS = 8 * GIB  # of a computer's memory for Python, libraries and the rows on their way


@dataclass(frozen=True)
class Needs:
    """Of a stage, or of a pipeline, whose stages follow each other.

    Attributes:
        steps: optimizer steps; None where neither the rows nor `training.max_steps` say.
        seconds: that all steps are predicted to take; None where no step has a time, as on CPUs.
        step: seconds of the longest step; 0 where it is not known.
        device: bytes of a device's memory.
        host: bytes of a computer's memory.
        checkpoint: bytes of the largest checkpoint.
    """

    steps: int | None
    seconds: float | None
    step: float
    device: int
    host: int
    checkpoint: int

    def then(self, other: "Needs") -> "Needs":
        """Those of both, one after the other."""
        return Needs(
            None if self.steps is None or other.steps is None else self.steps + other.steps,
            None if self.seconds is None or other.seconds is None else self.seconds + other.seconds,
            max(self.step, other.step),
            max(self.device, other.device),
            max(self.host, other.host),
            max(self.checkpoint, other.checkpoint),
        )


def plan_job(
    read: list[PlanInputs], accelerate: str | None, devices: int | None, nodes: int | None
) -> tuple[Machine, Needs]:
    """The machine a recipe is to run on, and what it needs there.

    Args:
        read: what could be read of the recipe's stages.
        accelerate: the machine's file; None takes the one that `olmoe-ft plan` begins with.
        devices: of all computers together, instead of the file's; None takes what the file says, on each of them.
        nodes: computers, instead of the file's.
    Raises:
        UserError: a file is missing or wrong, or the recipe cannot run on this machine.
    """
    machine = None if accelerate is None else on_nodes(read_machine(accelerate), devices, nodes)
    plans = [make_plan(one) for one in read]
    if machine is None:
        machine = on_nodes(machines_for(plans[0], None, devices)[0], devices, nodes)
        accelerate = f"configs/accelerate/{machine.name}.yaml"
    for plan in plans:
        check_machine(plan.recipe, machine, str(accelerate))
        check_optimizer(plan.recipe, machine.deepspeed, str(accelerate))
    first, *others = (_needs(plan, machine) for plan in plans)
    for one in others:
        first = first.then(one)
    return machine, first


def on_nodes(machine: Machine, devices: int | None, nodes: int | None) -> Machine:
    """A machine of another size.

    Raises:
        UserError: the devices cannot be so many, or not on so many computers.
    """
    nodes = nodes or machine.nodes
    devices = devices or machine.processes // machine.nodes * nodes
    if devices % nodes:
        raise UserError(f"--devices {devices}: found {nodes} nodes, and each has as many; give a multiple of {nodes}")
    if devices > 1 and not (machine.gpu and (machine.deepspeed or machine.processes > 1)):
        raise UserError(
            f"{machine.name}.yaml is for one process, and {devices} are asked for; take "
            "--accelerate configs/accelerate/zero2.yaml or zero3.yaml"
        )
    return replace(machine, processes=devices, nodes=nodes)


def _needs(plan: Plan, machine: Machine) -> Needs:
    recipe, arguments = plan.recipe, plan.arguments
    batch = largest_batch(plan)
    step = measure_step(recipe, plan.config, arguments, batch, machine.gpu)
    memory = device_memory(step, machine, arguments.gradient_accumulation_steps > 1)
    known = schedule(plan.inputs.train, arguments, machine.processes, plan.shares_prompts) if plan.inputs else None
    steps = known.count.steps if known else arguments.max_steps if arguments.max_steps > 0 else None
    seconds = 0.0
    if machine.gpu:
        work = work_of(recipe, plan.config, arguments, known.computed if known else plan.tokens(batch))
        seconds = step_time(step, machine, work, Rates()).seconds
    zero = machine.stage if machine.deepspeed else None
    return Needs(
        steps,
        seconds * steps if seconds and steps else None,
        seconds,
        memory.peak,
        _host(step, memory, machine),
        folders_of(recipe, plan.config, arguments, zero, machine.processes).checkpoint,
    )


def _host(step: StepMemory, memory: DeviceMemory, machine: Machine) -> int:
    """Every process of a computer reads the weights by way of its memory; without a GPU it trains in it."""
    own = memory.host + step.weights + step.reference if machine.gpu else memory.peak
    return machine.processes // machine.nodes * (PROCESS + own)
