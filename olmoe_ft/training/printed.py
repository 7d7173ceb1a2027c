"""What a run prints for people before it trains."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from peft import PeftModel
from rich.markup import escape
from rich.table import Table

from olmoe_ft.adapters.matched import adapted_kinds
from olmoe_ft.checkpoints.run_checkpoints import put_aside, read_object
from olmoe_ft.data.terminal import Console
from olmoe_ft.model.size import all_parameters, parameter_count
from olmoe_ft.recipe import Recipe
from olmoe_ft.recipe.precision import precision
from olmoe_ft.recipe.schema import Lora
from olmoe_ft.training.arguments import idle_gpus
from olmoe_ft.training.router.guard import reach_of_frozen_routers
from olmoe_ft.training.run_directory import RunDirectory
from olmoe_ft.training.steps import Steps

console = Console()


def print_start(recipe: Recipe, run: RunDirectory, trainer: Any, steps: Steps, resume: Path | None) -> None:
    weights = [weight for weight in trainer.model.parameters() if weight.requires_grad]
    trained = sum(parameter_count(weight) for weight in weights)
    console.print(
        f"[bold]{recipe.name}[/bold] ({recipe.stage.upper()}): {len(trainer.train_dataset):,} rows, "
        f"{steps.steps:,} steps ({steps.epochs:.4g} epochs), "
        f"{trained:,} parameters trained of a network of {all_parameters(trainer.model.config):,}, "
        f"{trainer.accelerator.num_processes} process(es), "
        f"into {run.path}/",
        soft_wrap=True,
    )
    console.print(f"in {precision(recipe, trainer.is_deepspeed_enabled)}", soft_wrap=True, highlight=False)
    for found in (steps.uneven(), idle_gpus(trainer.accelerator.num_processes)):
        if found is not None:
            console.print(f"[yellow]look:[/] {found}", soft_wrap=True, highlight=False)
    if recipe.lora is not None:
        console.print(adapter_table(recipe.lora, trainer.model))
    if (reach := reach_of_frozen_routers(trainer.model, recipe.router)) is not None:
        console.print(reach, soft_wrap=True)
    if (reason := recipe.kind.why_padded(recipe.model.attn_implementation)) is not None:
        shared = ", and a shared prompt is computed for each answer" if len(recipe.kind.sequences) > 1 else ""
        console.print(f"batches are padded{shared}: {reason}")
    if resume is not None:
        console.print(f"continuing from {resume}")
        before = (read_object(resume / "trainer_state.json") or {}).get("max_steps")
        if before != steps.steps and not trainer.args.lr_scheduler_type.startswith("constant"):
            console.print(
                f"[yellow]look:[/] its steps so far had the learning rates of a run of {before:,} steps; from here on "
                f"they are those of {steps.steps:,}",
                soft_wrap=True,
                highlight=False,
            )
        if (remark := trainer.remark(resume)) is not None:
            console.print(remark, soft_wrap=True)


def adapter_table(lora: Lora, model: PeftModel) -> Table:
    """What is adapted: kind of weight, how many of them, trainable parameters."""
    root = "sqrt(r)" if lora.use_rslora else "r"
    scale = lora.alpha / (lora.r**0.5 if lora.use_rslora else lora.r)
    table = Table(title=f"adapters of rank {lora.r}, alpha / {root} = {scale:g}")
    table.add_column("weight")
    table.add_column("trained")
    table.add_column("layers", justify="right")
    table.add_column("trainable parameters", justify="right")
    for kind in adapted_kinds(model):
        table.add_row(kind.name, kind.form, str(kind.matched), f"{kind.parameters:,}")
    return table


def print_recovered(sentences: Sequence[str]) -> None:
    """Say what a launch found damaged in its run directory."""
    for sentence in sentences:
        console.print(f"[yellow]look:[/] {escape(sentence)}", soft_wrap=True, highlight=False)


def print_aside(folder: Path) -> None:
    """Move a run out of the way, and say where it is."""
    if folder.exists():
        console.print(f"{folder}/ is kept as {put_aside(folder, 'before').name}/", soft_wrap=True, markup=False)
