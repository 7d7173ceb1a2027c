"""What `olmoe-ft plan` says of one stage: its data, its steps, its memory on one machine and on others."""

from collections.abc import Sequence
from dataclasses import dataclass

from rich.markup import escape
from rich.table import Table

from olmoe_ft.constants import GIB
from olmoe_ft.data.audit_report import data_report, print_audit
from olmoe_ft.data.locations import read_rows
from olmoe_ft.data.mixture import row_lengths
from olmoe_ft.data.terminal import Console
from olmoe_ft.model import OlmoeConfig
from olmoe_ft.model.size import all_parameters, matrix_parameters_per_token
from olmoe_ft.planning.advice import changes_that_fit
from olmoe_ft.planning.machine import Machine, read_machine
from olmoe_ft.planning.measured_step import Batch, measure_step
from olmoe_ft.planning.memory import DeviceMemory, device_memory
from olmoe_ft.planning.schedule import Schedule, schedule
from olmoe_ft.planning.shapes import print_shapes, shapes_by_speed
from olmoe_ft.planning.time import Rates, work_of
from olmoe_ft.recipe import Recipe, Unreachable, UserError
from olmoe_ft.recipe.precision import check_optimizer, precision
from olmoe_ft.shipped import found
from olmoe_ft.stages import TrainerArguments
from olmoe_ft.training.arguments import training_arguments
from olmoe_ft.training.inputs import Inputs, read_inputs
from olmoe_ft.training.model_files import model_config, stage_tokenizer, with_start_of
from olmoe_ft.training.run_directory import RunDirectory
from olmoe_ft.training.space import space_of

RELEASED = "olmoe-1b-7b"  # every released model with this in its name, and its runs, has the sizes of the file below
RELEASED_CONFIG = "configs/model/olmoe_1b_7b.json"

PARTS = {
    "weights": "weights",
    "adapters": "adapters",
    "gradients": "gradients",
    "optimizer": "optimizer states",
    "reference": "reference model",
    "gather": "gathered weights, buffers",
    "working": "activations and workspace",
    "head": "  of it the fused head",
    "peak": "peak of a device",
    "working_otherwise": "activations {} checkpointing",
    "host": "host memory, per device",
}


@dataclass(frozen=True)
class Plan:
    """What is known of a stage before it runs.

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
    def shares_prompts(self) -> bool:
        """Whether the answers of a pair share one copy of their prompt."""
        return self.recipe.kind.shares_prompts(self.recipe.model.attn_implementation)

    def tokens(self, batch: Batch) -> int:
        """Of a micro-batch, as the network sees it."""
        sides = len(self.recipe.kind.sequences) if batch.pair is None else 1
        return batch.rows * batch.tokens * sides


def make_plan(recipe: Recipe, before: "Sequence[Plan]" = ()) -> Plan:
    """Read what a stage names: configuration, tokenizer, rows; no weights.

    Args:
        before: the plans of earlier stages of a pipeline, one of whose networks it may go on from.
    Raises:
        UserError: a file the recipe names is missing or wrong, as `train` would say.
    """
    run = RunDirectory(recipe)
    here = {name: value for name, value in recipe.training.items() if name != "tf32"}  # refused where no GPU has it
    arguments = training_arguments(recipe.model_copy(update={"training": here}), run)
    unreachable: list[str] = []
    inputs: Inputs | None = None
    recipe = with_start_of(recipe, [plan.recipe for plan in before])
    try:
        config = model_config(recipe)
    except Unreachable as error:
        if RELEASED not in str(recipe.model.path).lower():
            raise
        unreachable.append(f"{error}; planned with {RELEASED_CONFIG}")
        config = OlmoeConfig.from_json_file(found(RELEASED_CONFIG))
    lacking = _lacking(recipe, config)
    if not lacking:
        try:
            inputs = read_inputs(recipe, config)
        except Unreachable as error:
            lacking["the benchmarks to look for"] = str(error)
    return Plan(recipe, config, arguments, inputs, [*lacking], [*unreachable, *lacking.values()])


def _lacking(recipe: Recipe, config: OlmoeConfig) -> dict[str, str]:
    """Which of a stage's inputs cannot be had, and why; looked at one by one, so that each is named."""

    def first_rows() -> None:
        for source in (*recipe.data.train, *recipe.data.eval):
            next(read_rows(source.path, source.split, source.config, source.revision), None)

    lacking = {}
    for what, look in {"the tokenizer": lambda: stage_tokenizer(recipe, config), "the data": first_rows}.items():
        try:
            look()
        except Unreachable as error:
            lacking[what] = str(error)
    return lacking


def print_plan(plan: Plan, machines: Sequence[Machine], budget: float, rates: Rates) -> None:
    """Everything about a stage, for the first machine and the others beside it.

    Args:
        budget: memory of a device, in GiB.
        rates: what GPUs are assumed to reach.
    Raises:
        UserError: on the first machine the optimizer would lose updates; others are left out, and named.
    """
    console = Console()
    recipe, inputs = plan.recipe, plan.inputs
    machines, lossy = machines_that_lose_nothing(recipe, machines)
    console.rule(f"{recipe.name} ({recipe.stage.upper()})")
    for reason in plan.unreachable:
        console.print(f"[yellow]not looked at:[/] {escape(reason)}", highlight=False)
    if inputs is not None:
        seen = (inputs.audit, inputs.train, inputs.tokenizer)
        print_audit(*seen, console, inputs.evaluation_audit)
        _write_report(recipe, data_report(*seen, inputs.evaluation_audit), console)
    batch = largest_batch(plan)
    steps_by_kind = {
        gpu: measure_step(recipe, plan.config, plan.arguments, batch, gpu) for gpu in {one.gpu for one in machines}
    }
    steps = schedule(inputs.train, plan.arguments, machines[0].processes, plan.shares_prompts) if inputs else None
    console.print(_facts(plan, machines[0], batch, steps))
    if steps is not None:
        machine = machines[0]
        zero = machine.stage if machine.deepspeed else None
        disk = space_of(recipe, plan.config, plan.arguments, steps.count, zero, machine.processes)
        console.print(f"disk for {RunDirectory(recipe).path}/: {disk}", soft_wrap=True, highlight=False, markup=False)
    accumulates = plan.arguments.gradient_accumulation_steps > 1
    memory = {machine: device_memory(steps_by_kind[machine.gpu], machine, accumulates) for machine in machines}
    console.print(_memory_table(memory, budget, bool(plan.arguments.gradient_checkpointing)))
    for reason in lossy:
        console.print(f"[yellow]not planned for:[/] {escape(reason)}", highlight=False)
    chosen, needed = next(iter(memory.items()))
    if chosen.gpu:
        work = work_of(recipe, plan.config, plan.arguments, steps.computed if steps else plan.tokens(batch))
        gpus = [machine for machine in machines if machine.gpu]
        shapes = shapes_by_speed(steps_by_kind[True], gpus, work, rates)
        print_shapes(console, shapes, budget, rates, chosen, bool(plan.arguments.gradient_checkpointing))
    where = f"with {escape(chosen.name)} on {chosen.processes} device(s)"
    if needed.fits(budget):
        console.print(f"[green]fits in {budget:g} GiB[/] {where}{_with_host(needed)}")
        return
    console.print(f"[red]does not fit in {budget:g} GiB[/] {where}")
    beside = {
        f"configs/accelerate/{machine.name}.yaml": other for machine, other in memory.items() if other.fits(budget)
    }
    changes = dict(changes_that_fit(plan.recipe, plan.config, plan.arguments, batch, chosen, budget))
    for change, other in {**changes, **beside}.items():
        text = f"fits with {change}: {other.peak / GIB:.1f} GiB{_with_host(other)}"
        console.print(text, highlight=False, markup=False)
    if not changes and not beside:
        console.print("no change to this recipe makes it fit; take a device with more memory")


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


def _with_host(needed: DeviceMemory) -> str:
    return f", and {needed.host / GIB:.0f} GiB of host memory for each device" if needed.host else ""


def largest_batch(plan: Plan) -> Batch:
    """The micro-batch that needs most: of the longest rows there are, or of `training.max_length` if unknown."""
    arguments = plan.arguments
    rows = arguments.per_device_train_batch_size
    if rows < 1 or arguments.gradient_accumulation_steps < 1:
        raise UserError("training.per_device_train_batch_size and gradient_accumulation_steps must be at least 1")
    packed = bool(getattr(arguments, "packing", False))
    if plan.inputs is None or packed:
        if (longest := arguments.max_length) is None:
            raise UserError("training.max_length: found null, and the rows are not known; give a length")
        return Batch(rows, longest, packed, 2 * longest if plan.shares_prompts else None)
    data = plan.inputs.train
    pair = int(row_lengths(data.rows).max()) if plan.shares_prompts else None
    return Batch(rows, int(data.lengths().max()), pair=pair)


def _write_report(recipe: Recipe, report: dict, console: Console) -> None:
    run = RunDirectory(recipe)
    try:
        run.check()
    except UserError as error:
        console.print(f"data_report.json is not written: {escape(str(error))}", highlight=False)
        return
    run.write_data_report(report)
    console.print(f"also in {run.data_report}", highlight=False)


def _facts(plan: Plan, machine: Machine, batch: Batch, steps: Schedule | None) -> Table:
    table = Table(title="Steps", show_header=False)
    arguments, sequences = plan.arguments, len(plan.recipe.kind.sequences)
    kind = "packs" if batch.packed else plan.recipe.kind.unit
    table.add_row("parameters", f"{all_parameters(plan.config):,}")
    table.add_row("of them multiplied with a token", f"{matrix_parameters_per_token(plan.config):,}")
    table.add_row("devices", f"{machine.processes} ({escape(machine.name)})")
    for name, dtype in precision(plan.recipe, machine.deepspeed)._asdict().items():
        table.add_row(f"  {name} in", dtype)
    apart = f" x {sequences}" if sequences > 1 and batch.pair is None else ""
    micro = f"{batch.rows} {kind} x {batch.tokens:,} tokens{apart}"
    table.add_row("largest micro-batch", micro)
    step = batch.rows * arguments.gradient_accumulation_steps * machine.processes
    table.add_row(f"{kind} a step", f"{step:,} = {batch.rows} x {arguments.gradient_accumulation_steps} x devices")
    if steps is None:
        table.add_row("tokens a step, at most", f"{step * batch.length * sequences:,}")
        table.add_row("optimizer steps", f"unknown without {' and '.join(plan.lacking)}")
        return table
    table.add_row(f"{kind} an epoch", f"{steps.rows:,}")
    if batch.packed:
        table.add_row("conversations a step, on average", f"{step * steps.rows_per_pack:,.0f}")
    table.add_row("tokens a step, on average", f"{steps.tokens_per_step:,.0f}")
    table.add_row("room left in packs" if batch.packed else "padding", f"{steps.padding:.0%} on average")
    if machine.processes > 1:
        table.add_row("waiting for the longest micro-batch", f"{steps.waiting:.0%} on average, of each device")
    if sequences > 1:
        why_not = plan.recipe.kind.why_not_shared(plan.recipe.model.attn_implementation)
        shared = f"yes: {steps.spared:.0%} fewer tokens" if plan.shares_prompts else f"no: {why_not}"
        table.add_row("prompts computed once", shared)
    count = steps.count
    table.add_row("optimizer steps", f"{count.steps:,} ({count.epochs:.4g} epochs of {count.per_epoch:,})")
    if (uneven := count.uneven()) is not None:
        table.add_row("rows that do not fill the last step", uneven)
    table.add_row("tokens in all", f"{steps.tokens:,.0f}")
    return table


def _memory_table(memory: dict[Machine, DeviceMemory], budget: float, checkpointing: bool) -> Table:
    table = Table(title="Memory of a device, GiB (parts at their highest)")
    table.add_column("")
    for machine in memory:
        table.add_column(f"{escape(machine.name)}\nx {machine.processes}", justify="right")
    for name, label in PARTS.items():
        values = [getattr(found, name) / GIB for found in memory.values()]
        if any(values) or name == "peak":
            style = "bold" if name == "peak" else None
            label = label.format("without" if checkpointing else "with")
            table.add_row(label, *(f"{value:.2f}" if value else "" for value in values), style=style)
    fits = ["yes" if found.fits(budget) else "no" for found in memory.values()]
    table.add_row(f"fits in {budget:g} GiB", *fits, style="bold")
    return table


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
