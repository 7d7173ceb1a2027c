"""The plan of one stage: its data, and on machines its steps, memory, disk and time. No weights are read."""

from collections.abc import Sequence
from dataclasses import dataclass

from olmoe_ft.data.mixture import row_lengths, tokens_in
from olmoe_ft.inputs import Inputs
from olmoe_ft.model import OlmoeConfig
from olmoe_ft.model.size import all_parameters
from olmoe_ft.planning.advice import changes_that_fit
from olmoe_ft.planning.inputs import PlanInputs, plan_inputs
from olmoe_ft.planning.machine import Machine, read_machine
from olmoe_ft.planning.measured_step import Batch, measure_step
from olmoe_ft.planning.memory import DeviceMemory, device_memory
from olmoe_ft.planning.schedule import Schedule, schedule
from olmoe_ft.planning.shapes import Shape, shapes_by_speed
from olmoe_ft.planning.time import Rates, work_of
from olmoe_ft.recipe import Recipe, UserError
from olmoe_ft.recipe.precision import check_optimizer
from olmoe_ft.stages import TrainerArguments
from olmoe_ft.training.arguments import training_arguments
from olmoe_ft.training.run_directory import RunDirectory
from olmoe_ft.training.space import Space, space_of


@dataclass(frozen=True)
class Plan:
    """What is known of a stage before it runs, whatever it runs on.

    Attributes:
        inputs: None where a part of them cannot be had.
        lacking: these parts.
        unreachable: why they, or the network's configuration, cannot be had; a sentence each.
    """

    recipe: Recipe
    config: OlmoeConfig
    arguments: TrainerArguments
    inputs: Inputs | None
    lacking: list[str]
    unreachable: list[str]

    @property
    def end_to_end(self) -> bool:
        """Whether a batch of prompts and answers is one row without padding."""
        return self.recipe.kind.lays_end_to_end(self.recipe.model.attn_implementation)

    def tokens(self, batch: Batch) -> int:
        """Of a micro-batch, as the network sees it."""
        sides = len(self.recipe.kind.sequences) if batch.laid is None else 1
        return batch.rows * batch.tokens * sides


@dataclass(frozen=True)
class Forecast:
    """A plan on a machine, and on others beside it.

    Attributes:
        budget: memory of a device, in GiB.
        rates: what GPUs are assumed to reach.
        batch: the micro-batch that needs most.
        steps: None where the rows are not known.
        space: bytes on the disk; None where the number of steps is not known.
        memory: of a device of each machine; the first one is the machine that the stage is planned for.
        left_out: why other machines are not planned for; a sentence each.
        shapes: GPUs with and without gradient checkpointing, the fastest first; none where it is planned for a CPU.
        changes: where it does not fit, single changes to the recipe that make it fit on that machine.
    """

    plan: Plan
    budget: float
    rates: Rates
    batch: Batch
    steps: Schedule | None
    space: Space | None
    memory: dict[Machine, DeviceMemory]
    left_out: list[str]
    shapes: list[Shape]
    changes: dict[str, DeviceMemory]

    @property
    def machine(self) -> Machine:
        """The one that the stage is planned for."""
        return next(iter(self.memory))

    @property
    def fits(self) -> bool:
        return self.memory[self.machine].fits(self.budget)


def make_plans(recipe: Recipe) -> list[Plan]:
    """The plans of a recipe's stages, in order.

    Raises:
        UserError: a file the recipe names is missing or wrong, as `train` would say.
    """
    return [make_plan(one) for one in plan_inputs(recipe)]


def make_plan(read: PlanInputs) -> Plan:
    """The plan of a stage from what was read of it.

    Raises:
        UserError: TRL or transformers refuses its arguments.
    """
    recipe = read.recipe
    here = {name: value for name, value in recipe.training.items() if name != "tf32"}  # refused where no GPU has it
    arguments = training_arguments(recipe.model_copy(update={"training": here}), RunDirectory(recipe))
    return Plan(recipe, read.config, arguments, read.inputs, read.lacking, read.unreachable)


def forecast(plan: Plan, machines: Sequence[Machine], budget: float, rates: Rates, advise: bool = True) -> Forecast:
    """What a plan comes to on machines; the first one is the machine that the stage is planned for.

    Args:
        budget: memory of a device, in GiB.
        rates: what GPUs are assumed to reach.
        advise: whether to look for changes that make it fit.
    Raises:
        UserError: on the first machine the optimizer would lose updates; others are left out, and named.
    """
    recipe, config, arguments = plan.recipe, plan.config, plan.arguments
    machines, left_out = machines_that_lose_nothing(recipe, machines)
    chosen, batch = machines[0], largest_batch(plan)
    step_on = {gpu: measure_step(recipe, config, arguments, batch, gpu) for gpu in {one.gpu for one in machines}}
    steps = schedule(plan.inputs.train, arguments, chosen.processes, plan.end_to_end) if plan.inputs else None
    zero = chosen.stage if chosen.deepspeed else None
    space = space_of(recipe, config, arguments, steps.count, zero, chosen.processes) if steps else None
    accumulates = arguments.gradient_accumulation_steps > 1
    memory = {machine: device_memory(step_on[machine.gpu], machine, accumulates) for machine in machines}
    shapes: list[Shape] = []
    if chosen.gpu:
        work = work_of(recipe, config, arguments, steps.computed if steps else plan.tokens(batch))
        shapes = shapes_by_speed(step_on[True], [machine for machine in machines if machine.gpu], work, rates)
    changes: dict[str, DeviceMemory] = {}
    if advise and not memory[chosen].fits(budget):
        changes = dict(changes_that_fit(recipe, config, arguments, batch, chosen, budget))
    return Forecast(plan, budget, rates, batch, steps, space, memory, left_out, shapes, changes)


def machines_that_lose_nothing(recipe: Recipe, machines: Sequence[Machine]) -> tuple[list[Machine], list[str]]:
    """The machines whose optimizer keeps the updates of bf16 weights, and why the others are none.

    Raises:
        UserError: the first, which was asked for, is one of the others.
    """
    fine, lossy = [], []
    for machine in machines:
        try:
            check_optimizer(recipe, machine.deepspeed, f"configs/accelerate/{machine.name}.yaml")
        except UserError as error:
            if machine is machines[0]:
                raise
            lossy.append(str(error))
        else:
            fine.append(machine)
    return fine, lossy


def largest_batch(plan: Plan) -> Batch:
    """The micro-batch that needs most: of the longest rows there are, or of `training.max_length` if unknown."""
    arguments, stage = plan.arguments, plan.recipe.kind
    rows = arguments.per_device_train_batch_size
    if rows < 1 or arguments.gradient_accumulation_steps < 1:
        raise UserError("training.per_device_train_batch_size and gradient_accumulation_steps must be at least 1")
    packed = bool(getattr(arguments, "packing", False))
    if plan.inputs is None or packed:
        if (longest := arguments.max_length) is None:
            raise UserError("training.max_length: found null, and the rows are not known; give a length")
        answers, alone = len(stage.sequences), longest if stage.joins(plan.recipe.training) else None
        return Batch(rows, longest, packed, answers * longest if plan.end_to_end else None, alone)
    data = plan.inputs.train
    laid = int(row_lengths(data.rows, stage).max()) if plan.end_to_end else None
    alone = None
    if stage.joins(plan.recipe.training):
        alone = int(tokens_in(plan.inputs.train_rows, stage.estimated).max())
        alone = min(alone, arguments.max_length or alone)
    return Batch(rows, int(data.lengths().max()), laid=laid, forward_alone=alone)


def machines_for(plan: Plan, own: Machine | None, devices: int | None) -> list[Machine]:
    """The machine a stage is planned for, then those beside it.

    Args:
        own: the machine that was asked for; None takes ZeRO-3, or one GPU where there is one device.
        devices: where no machine was asked for, None takes 8 for a network of the released size, and one CPU or GPU for
            a smaller one.
    """
    large = all_parameters(plan.config) > 10**9
    count = own.processes if own is not None else devices or (8 if large else 1)
    one = ("gpu", "zero3-offload") if large else ("cpu", "gpu")
    names = ("zero3", "zero2", *one) if count > 1 else one
    machines = [read_machine(f"configs/accelerate/{name}.yaml", count) for name in names]
    if plan.recipe.model.quantization is not None:
        machines = [machine for machine in machines if machine.stage < 3]
        if own is not None and own.stage == 3:
            raise UserError(
                f"--accelerate {own.name}: not with model.quantization, which ZeRO-3 cannot cut up; "
                "choose gpu.yaml or zero2.yaml"
            )
    if own is None:
        return machines
    return [own, *(machine for machine in machines if machine != own)]
