"""`report.html` of a run or of a pipeline, from the files that are there."""

from pathlib import Path

from olmoe_ft.report.card.card import CARD, write_card
from olmoe_ft.report.files.run_files import read_run, stages_of
from olmoe_ft.report.page.blocks import Page
from olmoe_ft.report.page.render import write_page
from olmoe_ft.report.page.target import check_target, write_to
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
    return _write(pipeline_page(folder) if stages_of(folder) else run_page(read_run(folder)), folder)


def write_all(folder: Path) -> list[str]:
    """Write the page of a run and, where it has finished, its card; of a pipeline those of its stages before its own
    page, which leads to them.

    Returns:
        a line for each file: what became of it.
    """
    stages, lines = stages_of(folder), []
    for place in stages or [folder]:
        run = read_run(place)
        lines.append(f"wrote {_write(run_page(run), place)}")
        if (final := place / "final").is_dir():
            written = write_card(run)
            lines.append(f"wrote {final / CARD}" if written else f"kept {final / CARD}, which was changed by hand")
    return [*lines, f"wrote {write_report(folder)}"] if stages else lines


def write_elsewhere(folder: Path, file: Path) -> None:
    """Write the page of a run or of a pipeline into a file that a person names, and nothing into its folder.

    Raises:
        UserError: it is neither, or the file cannot be written, or is something else.
    """
    check_target(file)
    page = pipeline_page(folder, linked=False) if stages_of(folder) else run_page(read_run(folder))
    write_to(page, file, private_here([folder]))


def _write(page: Page, folder: Path) -> Path:
    write_page(page, folder / NAME, private_here([folder]))
    return folder / NAME
