"""A page as one HTML file: no request leaves it, and no text in it is ever read as anything else."""

from pathlib import Path

from olmoe_ft.report.blocks import Page


def render(page: Page) -> str:
    """The HTML of a page."""
    raise NotImplementedError


def write_page(page: Page, file: Path) -> None:
    """Write a page whole, or not at all."""
    raise NotImplementedError
