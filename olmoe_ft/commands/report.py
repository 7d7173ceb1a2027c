"""`olmoe-ft report`: the page of a run or of a pipeline, now."""

from pathlib import Path
from typing import Annotated

import typer


def report(
    run: Annotated[
        Path, typer.Argument(help="A run directory, or a pipeline's folder, e.g. runs/tiny-sft.", show_default=False)
    ],
) -> None:
    """Write report.html into a run's folder: what was asked, the data, curves, experts, samples, scores, cost.

    At any time: while it trains, after it was killed, or again after an evaluation. Open the file in a browser; it
    needs no network.
    """
    from olmoe_ft.data.terminal import say
    from olmoe_ft.report.written import write_reports

    for file in write_reports(run):
        say(f"wrote {file}")
