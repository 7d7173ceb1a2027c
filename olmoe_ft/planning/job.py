"""What a recipe needs from a batch system: time, memory, and the time for a stop."""

from dataclasses import dataclass, replace

from olmoe_ft.constants import GIB
from olmoe_ft.planning.inputs import PlanInputs
from olmoe_ft.planning.machine import Machine, check_machine, read_machine
from olmoe_ft.planning.measured_step import measure_step
from olmoe_ft.planning.memory import DeviceMemory, device_memory
from olmoe_ft.planning.plan import Plan, largest_batch, machines_for, make_plan
from olmoe_ft.planning.schedule import schedule
from olmoe_ft.planning.step_memory import StepMemory
from olmoe_ft.planning.time import Rates, step_time, work_of
from olmoe_ft.recipe import UserError
from olmoe_ft.recipe.precision import check_optimizer
from olmoe_ft.training.space import folders_of

PROCESS = 8 * GIB  # of a computer's memory, for Python, libraries and rows being loaded


@dataclass(frozen=True)
class Needs:
    """The needs of a stage, or of a pipeline, where one stage runs after the other.

    Attributes:
        steps: optimizer steps; None if neither the rows nor `training.max_steps` tell.
        seconds: predicted time of all steps; None if a step has no predicted time, as on CPUs.
        step: seconds of the longest step; 0 if unknown.
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
        """The needs of both, one after the other."""
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
    """The machine for a recipe, and what the recipe needs there.

    Args:
        read: what could be read of the recipe's stages.
        accelerate: the machine's file; None takes the first one that `olmoe-ft plan` tries.
        devices: of all computers together, instead of the file's; None takes the file's number for each computer.
        nodes: number of computers, instead of the file's.
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
    """A machine with another number of devices or nodes.

    Raises:
        UserError: the machine cannot have so many devices, or they cannot be split evenly over the nodes.
    """
    nodes = nodes or machine.nodes
    devices = devices or machine.processes // machine.nodes * nodes
    if devices % nodes:
        raise UserError(f"--devices: found {devices} for {nodes} nodes; allowed: multiples of {nodes}")
    if devices > 1 and not (machine.gpu and (machine.deepspeed or machine.processes > 1)):
        raise UserError(
            f"--devices: found {devices}, but {machine.name}.yaml is for one process; use "
            "--accelerate configs/accelerate/zero2.yaml or zero3.yaml"
        )
    return replace(machine, processes=devices, nodes=nodes)


def _needs(plan: Plan, machine: Machine) -> Needs:
    recipe, arguments = plan.recipe, plan.arguments
    batch = largest_batch(plan)
    step = measure_step(recipe, plan.config, arguments, batch, machine.gpu)
    memory = device_memory(step, machine, arguments.gradient_accumulation_steps > 1)
    known = schedule(plan.inputs.train, arguments, machine.processes, plan.end_to_end) if plan.inputs else None
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
    """Every process loads the weights through the computer's memory; without a GPU it also trains there."""
    own = memory.host + step.weights + step.reference if machine.gpu else memory.peak
    return machine.processes // machine.nodes * (PROCESS + own)
