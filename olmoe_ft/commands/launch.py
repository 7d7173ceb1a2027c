"""A recipe as a job of SLURM: planned for, written, and submitted or shown."""

import sys
from collections.abc import Sequence
from contextlib import redirect_stdout
from pathlib import Path

from olmoe_ft.data.terminal import printable
from olmoe_ft.planning.inputs import plan_inputs
from olmoe_ft.recipe import Recipe
from olmoe_ft.training.run_directory import RunDirectory


def make_job(
    recipe: Recipe,
    command: Sequence[str],
    accelerate: str | None,
    devices: int | None,
    nodes: int | None,
    sbatch: Sequence[str],
) -> str:
    """The text of the job that trains a recipe.

    Args:
        command: the recipe's name, and what is changed in it, as `train` takes them.
        accelerate, devices, nodes: as `plan_job` takes them.
        sbatch: options of sbatch, such as `partition=gpu`.
    Raises:
        UserError: a file is missing or wrong, the recipe cannot run on this machine, or an option is none.
    """
    for stage in recipe.runs:
        RunDirectory(stage).check()  # what is wrong here, the job would say only when its turn comes
    with redirect_stdout(sys.stderr):  # where libraries say things, too, which are no part of the job's file
        read = plan_inputs(recipe)
        from olmoe_ft.planning.job import plan_job
        from olmoe_ft.slurm import job_file

        machine, needs = plan_job(read, accelerate, devices, nodes)
    file = accelerate if accelerate is not None else f"configs/accelerate/{machine.name}.yaml"
    return job_file(recipe, command, file, machine, needs, sbatch)


def submit_job(recipe: Recipe, text: str) -> None:
    """Write a job's file, named for the recipe's run, and give it to SLURM.

    Raises:
        UserError: there is no SLURM here, it takes no such job, or the file is there with another text.
    """
    from olmoe_ft.slurm import submit

    submit(text, Path(f"{recipe.name.replace('/', '-')}.sbatch"))


def show_job(text: str) -> None:
    """Print a job's file; on a terminal without its control characters."""
    print(printable(text) if sys.stdout.isatty() else text, end="")
