"""`report.html` of a run or of a pipeline, from the files that are there."""

from collections.abc import Iterator
from pathlib import Path

from olmoe_ft.report.page import write_page
from olmoe_ft.report.pipeline_page import pipeline_page
from olmoe_ft.report.private import private_here
from olmoe_ft.report.run_files import read_run, stages_of
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


def write_reports(folder: Path) -> Iterator[Path]:
    """Write the page of a run; of a pipeline those of its stages too, before its own, which links to them."""
    for place in (*stages_of(folder), folder):
        yield write_report(place)
