"""`olmoe-ft report`: the page of a run or of a pipeline, now."""

from pathlib import Path
from typing import Annotated

import typer

from olmoe_ft.checkpoints.run_checkpoints import read_object
from olmoe_ft.data.terminal import say
from olmoe_ft.recipe import UserError, load_recipe
from olmoe_ft.report.files.run_files import stages_of
from olmoe_ft.training.lock import held


def report(
    run: Annotated[
        Path, typer.Argument(help="A run directory, or a pipeline's folder, e.g. runs/tiny-sft.", show_default=False)
    ],
) -> None:
    """Write report.html into a run's folder: what was asked, the data, curves, experts, samples, scores, cost.

    At any time: while it trains, after it was killed, or again after an evaluation. Open the file in a browser; it
    needs no network. Of a finished run the model card, final/README.md, is written again too.
    """
    from olmoe_ft.report.written import write_all

    for folder in (*stages_of(run), run):
        _complete_plan(folder)
    for line in write_all(run):
        say(line)


def _complete_plan(folder: Path) -> None:
    """The plan of a killed launch lacks what takes seconds to find; that needs the recipe's files, and torch."""
    planned = read_object(folder / "plan.json")
    if planned is None or "machine" not in planned or "memory" in planned or held(folder) is not False:
        return
    say(f"planning {folder} once more, as its launch could not complete its plan …")
    from olmoe_ft.planning.of_launch import complete
    from olmoe_ft.training.run_directory import RunDirectory

    try:
        complete(RunDirectory(load_recipe(str(folder / "recipe.yaml"))), planned)
    except UserError as error:
        say(f"check: its plan stays as it is: {error}")
