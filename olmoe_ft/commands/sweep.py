"""The command `sweep`: what it takes. What it does is in olmoe_ft/sweep."""

from typing import Annotated

import typer

from olmoe_ft.recipe import UserError


def sweep(
    recipe: Annotated[
        str,
        typer.Argument(help="A recipe: a file, or one that comes with olmoe-ft, e.g. tiny/dpo.", show_default=False),
    ],
    settings: Annotated[
        list[str],
        typer.Argument(
            help="key=v1,v2 or key=lo..hi:log:5 (or :linear:5) for what varies; key=value for all points.",
            show_default=False,
        ),
    ],
    name: Annotated[
        str | None, typer.Option(help="The sweep's folder in runs/.", show_default="the recipe's name, with -sweep")
    ] = None,
    search: Annotated[
        str,
        typer.Option(help="grid: every combination. random: --max points drawn with --seed. tpe: optuna chooses them."),
    ] = "grid",
    count: Annotated[
        int | None, typer.Option("--max", help="The number of points; of a grid, random ones of it.", min=1)
    ] = None,
    seed: Annotated[int, typer.Option(help="Of what is drawn.")] = 0,
    by: Annotated[
        str | None,
        typer.Option(
            help="The metric that points are sorted by, e.g. eval_loss, eval/answers/exact_match.",
            show_default="eval_loss, else the first task's score, else loss/task",
        ),
    ] = None,
    plan: Annotated[bool, typer.Option("--plan", help="Print the plan of all points; run nothing.")] = False,
    slurm: Annotated[
        bool, typer.Option("--slurm", help="Print a line for each point that submits it as a SLURM job; run nothing.")
    ] = False,
    keep_diverged: Annotated[
        bool, typer.Option("--keep-diverged", help="Train on where the loss diverges or the routers collapse.")
    ] = False,
    accelerate: Annotated[
        str | None,
        typer.Option(
            help="How each point is to train, e.g. configs/accelerate/zero2.yaml.", show_default="one process"
        ),
    ] = None,
    device_memory: Annotated[
        float | None,
        typer.Option(help="Memory of a device, in GiB.", min=0, show_default="this machine's; 80 with --slurm"),
    ] = None,
    devices: Annotated[
        int | None, typer.Option(help="With --slurm: GPUs of all computers together.", min=1, show_default="the file's")
    ] = None,
    nodes: Annotated[
        int | None, typer.Option(help="With --slurm: computers.", min=1, show_default="the file's")
    ] = None,
    sbatch: Annotated[
        list[str] | None, typer.Option(help="With --slurm: an option of sbatch, e.g. partition=gpu; can be repeated.")
    ] = None,
) -> None:
    """Train a recipe with several values: plan all points, run them one after the other, compare them on one page.

    Which learning rate? olmoe-ft sweep tiny/sft training.learning_rate=5e-4..5e-3:log:4

    Two things at once: olmoe-ft sweep tiny/dpo router.load_balancing_coef=0.0,0.01 router.train=full,frozen

    Only look: add --plan. Twenty points between two ends: learning rates of 1e-6..1e-4:log, --search random --max 20

    Each point is a run in runs/<sweep>/<point>/. Stopped by Ctrl-C, the sweep goes on there with the same command. A
    point that diverges or whose routers collapse is stopped and marked.
    """
    from olmoe_ft.sweep.command import Asked
    from olmoe_ft.sweep.command import sweep as run_sweep

    of_slurm = {"--devices": devices, "--nodes": nodes, "--sbatch": sbatch or None}
    if not slurm and (given := [option for option, value in of_slurm.items() if value is not None]):
        raise UserError(f"{', '.join(given)}: found without --slurm; add it, or say it in accelerate's file")
    options = {"--accelerate": accelerate, "--devices": devices, "--nodes": nodes}
    words = [word for option, value in options.items() if value is not None for word in (option, str(value))]
    words += [word for value in sbatch or () for word in ("--sbatch", value)]
    run_sweep(
        Asked(
            recipe=recipe, settings=tuple(settings), name=name, search=search, count=count, seed=seed, by=by,
            accelerate=accelerate, device_memory=device_memory, keep_diverged=keep_diverged, plan_only=plan,
            slurm=tuple(words) if slurm else None, devices=devices,
        )
    )  # fmt: skip
