"""`olmoe-ft recipes`: the list of what comes with olmoe-ft, and copies of it."""

from typing import Annotated

import typer

recipes_app = typer.Typer(invoke_without_command=True)


@recipes_app.callback()
def recipes(context: typer.Context) -> None:
    """List the recipes that come with olmoe-ft; `recipes copy NAME` writes one to start from."""
    if context.invoked_subcommand is not None:
        return
    _print_catalog()


@recipes_app.command("copy")
def copy_recipe(
    name: Annotated[
        str, typer.Argument(help="A recipe, machine shape, network or job, as `olmoe-ft recipes` lists it.")
    ],
    to: Annotated[
        str | None, typer.Option(help="The file to write; must not exist.", show_default="NAME-OF-ITS-RUN.yaml")
    ] = None,
) -> None:
    """Write a recipe as one file to start from, with a comment on each line that says what its key does.

    Others (configs/accelerate/zero3, configs/slurm/nodes) keep their path; DeepSpeed's file is written beside a shape.
    """
    from olmoe_ft.data.terminal import say
    from olmoe_ft.recipe.catalog import copy

    for file in copy(name, to):
        say(f"written: {file}")


def _print_catalog() -> None:
    """Recipes as a table, and the names of what else can be copied."""
    from rich.table import Table

    from olmoe_ft.data.terminal import Console
    from olmoe_ft.recipe.catalog import config_names, entries

    table = Table("recipe", "stage", "runs on", "what it does", box=None, pad_edge=False)
    for entry in entries():
        table.add_row(*entry)
    table.columns[0].no_wrap = True
    console = Console()
    console.print(table, highlight=False, markup=False)
    print(
        "\nRun one: olmoe-ft train tiny/sft. Write it here, with a comment on each line: olmoe-ft recipes copy tiny/sft"
    )
    print(f"Machine shapes, networks and jobs for SLURM, to copy in the same way: {', '.join(config_names())}")
