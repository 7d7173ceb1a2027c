"""The list of what comes with olmoe-ft, as `olmoe-ft recipes` prints it."""

from rich.table import Table

from olmoe_ft.data.terminal import Console
from olmoe_ft.recipe.catalog import config_names, entries


def print_catalog() -> None:
    """Recipes as a table, and the names of what else can be copied."""
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
