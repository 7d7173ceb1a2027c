"""What `olmoe-ft plan` prints of one stage."""

from collections.abc import Sequence

from rich.markup import escape
from rich.table import Table

from olmoe_ft.data.audit_report import data_report, print_audit
from olmoe_ft.data.terminal import Console
from olmoe_ft.model.size import all_parameters, matrix_parameters_per_token
from olmoe_ft.planning.machine import Machine
from olmoe_ft.planning.measured_step import Batch
from olmoe_ft.planning.memory import GIB, DeviceMemory
from olmoe_ft.planning.plan import Forecast, Plan, forecast, machines_that_lose_nothing
from olmoe_ft.planning.schedule import Schedule
from olmoe_ft.planning.shapes import print_shapes
from olmoe_ft.planning.time import Rates
from olmoe_ft.recipe import Recipe, UserError
from olmoe_ft.recipe.precision import precision
from olmoe_ft.training.run_directory import RunDirectory

PARTS = {
    "weights": "weights",
    "adapters": "adapters",
    "gradients": "gradients",
    "optimizer": "optimizer states",
    "reference": "reference model",
    "gather": "gathered weights, buffers",
    "working": "activations and workspace",
    "head": "  of it the fused head",
    "evaluation": "evaluation between steps",
    "peak": "peak of a device",
    "working_otherwise": "activations {} checkpointing",
    "host": "host memory, per device",
}


def print_plan(plan: Plan, machines: Sequence[Machine], budget: float, rates: Rates) -> None:
    """Everything about a stage, for the first machine and the others beside it; its data first, which is known.

    Args, Raises: those of `forecast`.
    """
    console = Console()
    machines_that_lose_nothing(plan.recipe, machines)  # else nothing is printed
    console.rule(f"{plan.recipe.name} ({plan.recipe.stage.upper()})")
    _print_data(plan, console)
    _print_forecast(forecast(plan, machines, budget, rates), console)


def _print_data(plan: Plan, console: Console) -> None:
    for reason in plan.unreachable:
        console.print(f"[yellow]not looked at:[/] {escape(reason)}", highlight=False)
    if (inputs := plan.inputs) is not None:
        seen = (inputs.audit, inputs.train, inputs.tokenizer)
        print_audit(*seen, console, inputs.evaluation_audit)
        _write_report(plan.recipe, data_report(*seen, inputs.evaluation_audit), console)


def _print_forecast(found: Forecast, console: Console) -> None:
    plan, chosen, budget = found.plan, found.machine, found.budget
    checkpointing = bool(plan.arguments.gradient_checkpointing)
    console.print(_facts(plan, chosen, found.batch, found.steps))
    if found.space is not None:
        place = RunDirectory(plan.recipe).path
        console.print(f"disk for {place}/: {found.space}", soft_wrap=True, highlight=False, markup=False)
    console.print(_memory_table(found.memory, budget, checkpointing))
    for reason in found.left_out:
        console.print(f"[yellow]not planned for:[/] {escape(reason)}", highlight=False)
    if found.shapes:
        print_shapes(console, found.shapes, budget, found.rates, chosen, checkpointing)
    where = f"with {escape(chosen.name)} on {chosen.processes} device(s)"
    if found.fits:
        console.print(f"[green]fits in {budget:g} GiB[/] {where}{_with_host(found.memory[chosen])}")
        return
    console.print(f"[red]does not fit in {budget:g} GiB[/] {where}")
    beside = {
        f"configs/accelerate/{machine.name}.yaml": other
        for machine, other in found.memory.items()
        if other.fits(budget)
    }
    for change, other in {**found.changes, **beside}.items():
        text = f"fits with {change}: {other.peak / GIB:.1f} GiB{_with_host(other)}"
        console.print(text, highlight=False, markup=False)
    if not found.changes and not beside:
        console.print("no change to this recipe makes it fit; take a device with more memory")


def _with_host(needed: DeviceMemory) -> str:
    return f", and {needed.host / GIB:.0f} GiB of host memory for each device" if needed.host else ""


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
    forwards = plan.recipe.kind.forwards(arguments)
    table.add_row("parameters", f"{all_parameters(plan.config):,}")
    table.add_row("of them multiplied with a token", f"{matrix_parameters_per_token(plan.config):,}")
    table.add_row("devices", f"{machine.processes} ({escape(machine.name)})")
    for name, dtype in precision(plan.recipe, machine.deepspeed)._asdict().items():
        table.add_row(f"  {name} in", dtype)
    apart = f" x {sequences}" if sequences > 1 and batch.laid is None else ""
    micro = f"{batch.rows} {kind} x {batch.tokens:,} tokens{apart}"
    table.add_row("largest micro-batch", micro)
    if passes := [f"{count} of the {who}" for who, count in forwards._asdict().items() if count]:
        table.add_row("forward alone, beside it", " and ".join(passes))
    step = batch.rows * arguments.gradient_accumulation_steps * machine.processes
    table.add_row(f"{kind} a step", f"{step:,} = {batch.rows} x {arguments.gradient_accumulation_steps} x devices")
    if steps is None:
        table.add_row("tokens a step, at most", f"{step * batch.length * sequences:,}")
        if asked := arguments.max_steps > 0:
            table.add_row("optimizer steps", f"{arguments.max_steps:,}")
        table.add_row("epochs" if asked else "optimizer steps", f"unknown without {' and '.join(plan.lacking)}")
        return table
    table.add_row(f"{kind} an epoch", f"{steps.rows:,}")
    if batch.packed:
        table.add_row("conversations a step, on average", f"{step * steps.rows_per_pack:,.0f}")
    table.add_row("tokens a step, on average", f"{steps.tokens_per_step:,.0f}")
    why_padded = plan.recipe.kind.why_padded(plan.recipe.model.attn_implementation)
    because = f": {why_padded}" if why_padded and sequences == 1 else ""
    table.add_row("room left in packs" if batch.packed else "padding", f"{steps.padding:.0%} on average{because}")
    if machine.processes > 1:
        table.add_row("waiting for the longest micro-batch", f"{steps.waiting:.0%} on average, of each device")
    if sequences > 1:
        shared = f"yes: {steps.spared:.0%} fewer tokens" if plan.end_to_end else f"no: {why_padded}"
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
