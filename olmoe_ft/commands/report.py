"""`olmoe-ft report`: the page of a run or of a pipeline, now."""

import os
from pathlib import Path
from typing import Annotated

import typer

from olmoe_ft.checkpoints.run_checkpoints import read_object
from olmoe_ft.data.terminal import say
from olmoe_ft.reasons import one_line
from olmoe_ft.recipe import UserError, load_recipe
from olmoe_ft.report.files.run_files import stages_of
from olmoe_ft.training.lock import held


def report(
    run: Annotated[
        Path, typer.Argument(help="A run directory, or a pipeline's folder, e.g. runs/tiny-sft.", show_default=False)
    ],
    to: Annotated[
        Path | None,
        typer.Option(
            help="The file to write the page to, a new one or an older page; nothing is then written into the run.",
            show_default="report.html in the run's folder",
        ),
    ] = None,
) -> None:
    """Write report.html into a run's folder: what was asked, the data, curves, experts, samples, scores, cost.

    At any time: while it trains, after it was killed, or again after an evaluation. Open the file in a browser; it
    needs no network. Of a finished run the model card, final/README.md, is written again too.
    """
    from olmoe_ft.report.written import write_all, write_elsewhere

    if to is not None:
        write_elsewhere(run, to)
        say(f"wrote {to}")
        return
    try:
        for folder in (*stages_of(run), run):
            _complete_plan(folder)
        lines = write_all(run)
    except OSError as error:  # a disk that is read-only, or full
        where, why = error.filename or run, os.strerror(error.errno or 0)
        raise UserError(f"{where}: {why}; to write the page elsewhere: olmoe-ft report {run} --to FILE") from error
    for line in lines:
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
    except (UserError, TypeError) as error:  # a file is gone; or plan.json, which is damaged, names no machine
        say(f"check: its plan stays as it is: {one_line(error)}")
