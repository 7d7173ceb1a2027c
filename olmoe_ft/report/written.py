"""`report.html` of a run or of a pipeline, from the files that are there."""

from collections.abc import Iterator
from pathlib import Path

from olmoe_ft.report.card.card import CARD, write_card
from olmoe_ft.report.files.run_files import read_run, stages_of
from olmoe_ft.report.page.render import write_page
from olmoe_ft.report.pipeline_page import pipeline_page
from olmoe_ft.report.private.private import private_here
from olmoe_ft.report.run_page import run_page

NAME = "report.html"


def write_report(folder: Path) -> Path:
    """Write the page of a run directory into it, or that of a pipeline into its folder.

    Raises:
        UserError: it is neither.
        OSError: the page cannot be written.
    """
    file = folder / NAME
    page = pipeline_page(folder) if stages_of(folder) else run_page(read_run(folder))
    write_page(page, file, private_here([folder]))
    return file


def write_all(folder: Path) -> Iterator[str]:
    """Write the page of a run and, where it has finished, its card; of a pipeline those of its stages before its own
    page, which leads to them.

    Returns:
        a line for each file: what became of it.
    """
    stages = stages_of(folder)
    for run in stages or [folder]:
        yield f"wrote {write_report(run)}"
        if (final := run / "final").is_dir():
            changed = not write_card(run)
            yield f"kept {final / CARD}, which was changed by hand" if changed else f"wrote {final / CARD}"
    if stages:
        yield f"wrote {write_report(folder)}"
