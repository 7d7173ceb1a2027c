"""`olmoe-ft compare`: several runs on one page, and a table of them in the terminal."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

NAME = "compare.html"


def compare(
    runs: Annotated[list[Path], typer.Argument(help="Two run directories or more.", show_default=False)],
    to: Annotated[
        Path | None,
        typer.Option(
            help="The file to write: a new one, or an older page.",
            show_default="compare.html in the folder that holds the runs",
        ),
    ] = None,
    by: Annotated[
        str | None,
        typer.Option(
            help="Sort the runs by a metric of metrics.jsonl (loss/task, eval_loss) or a score (eval/TASK/METRIC).",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Show runs side by side: what differs, curves, scores with the significance of differences, experts, samples.

    The first run is what the others are compared with. Runs may still train, or have failed. Of a pipeline its last
    stage is compared.

    Is it better? olmoe-ft compare runs/tiny-sft runs/tiny-dpo --by eval/answers/exact_match
    """
    from olmoe_ft.data.terminal import Console, say
    from olmoe_ft.report.comparison.compared import runs_at
    from olmoe_ft.report.comparison.comparison import comparison, summary_of
    from olmoe_ft.report.comparison.printed import print_table
    from olmoe_ft.report.page.target import check_target, write_to
    from olmoe_ft.report.private.private import private_here

    found, notes = runs_at(runs)
    file = to or _common_folder([one.path for one in found]) / NAME
    check_target(file)
    page = comparison(found, by)
    write_to(page, file, private_here([run.path for run in found]))
    for table in summary_of(page):
        print_table(table, Console(highlight=False))
    for note in notes:
        say(note)
    say(f"the page: {file}")


def _common_folder(runs: Sequence[Path]) -> Path:
    """The innermost folder that holds all runs; the working folder where they have nothing but the disk in common."""
    from olmoe_ft.report.comparison.compared import common_folder

    common, here = common_folder(runs), Path.cwd()
    if common == Path(common.anchor):
        return Path()
    return Path(os.path.relpath(common)) if common.is_relative_to(here) else common
