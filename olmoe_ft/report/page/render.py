"""A page as one HTML file: no request leaves it, and no text in it is ever read as anything else."""

import base64
import hashlib
import math
import os
import re
from collections.abc import Iterator, Sequence
from functools import cache
from itertools import groupby
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from olmoe_ft import __version__
from olmoe_ft.report.page.blocks import Block, Curves, Facts, Histogram, Page
from olmoe_ft.report.page.charts import chart_of
from olmoe_ft.report.page.clean import cleaned
from olmoe_ft.report.private.private import Private

HERE = Path(__file__).parent
STATIC = HERE / "static"
STYLES = ("uplot/uPlot.min.css", "page.css", "blocks.css", "charts.css")
CHART_SCRIPTS = ("series.js", "curves.js", "histogram.js", "heat_colours.js", "heat_maps.js")
SCRIPTS = ("uplot/uPlot.iife.min.js", "page.js", *CHART_SCRIPTS, "start.js")
MOST_TILES = 6  # in a row
GENERATOR = "olmoe-ft"
MARK = f'<meta name="generator" content="{GENERATOR}'  # by which a page is known as one of ours
SIDE_BY_SIDE = (Curves, Histogram, Facts)


def render(page: Page, private: Private) -> str:
    """The HTML of a page.

    Args:
        page: its texts are as they were found.
        private: what is taken out of every text.
    Returns:
        a whole document, with its styles, scripts and data in it.
    """
    scripts = [_static(name) for name in SCRIPTS]
    return (
        _environment()
        .get_template("page.html.jinja")
        .render(
            page=cleaned(page, private),
            generator=f"{GENERATOR} {__version__}",
            policy=content_security_policy(scripts),
            styles=[Markup(_static(name)) for name in STYLES],
            scripts=[Markup(script) for script in scripts],
            licence=Markup(_static("uplot/LICENSE").strip()),
        )
    )


def write_page(page: Page, file: Path, private: Private) -> None:
    """Write a page whole, or not at all. A run and a person may do so at the same time."""
    text, partial = render(page, private), file.with_name(f".{file.name}.{os.getpid()}")
    try:
        partial.write_text(text, encoding="utf-8")
        os.replace(partial, file)
    finally:
        partial.unlink(missing_ok=True)


def content_security_policy(scripts: Sequence[str]) -> str:
    """What a browser may do with a page: run these scripts and no others, and load nothing from anywhere."""
    hashes = " ".join(f"'sha256-{base64.b64encode(hashlib.sha256(one.encode()).digest()).decode()}'" for one in scripts)
    return (
        f"default-src 'none'; script-src {hashes}; style-src 'unsafe-inline'; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )


def placed(blocks: Sequence[Block]) -> Iterator[tuple[Block, bool]]:
    """Blocks, each with whether it takes half of the width where there is room.

    Charts and facts that follow each other are two in a row; of an odd number the first one, which matters most, has
    a row for itself.
    """
    for kind, run in groupby(blocks, type):
        found = list(run)
        for place, block in enumerate(found):
            alone = kind is not Facts and len(found) % 2 == 1 and place == 0
            yield block, kind in SIDE_BY_SIDE and len(found) > 1 and not alone


def in_a_row(tiles: Sequence[object]) -> int:
    """How many tiles are in a row where there is room: seven are four and three, not six and one."""
    rows = math.ceil(len(tiles) / MOST_TILES)
    return math.ceil(len(tiles) / rows)


def anchor(text: str) -> str:
    """A text as the name of a place in the page."""
    return re.sub(r"[^a-z0-9-]+", "-", text.lower()) or "section"


@cache
def _static(name: str) -> str:
    return (STATIC / name).read_text(encoding="utf-8")


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(HERE / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["anchor"] = anchor
    environment.filters["chart"] = chart_of
    environment.filters["placed"] = placed
    environment.filters["in_a_row"] = in_a_row
    environment.filters["kind"] = lambda block: type(block).__name__
    environment.policies["json.dumps_kwargs"] = {"separators": (",", ":"), "allow_nan": False, "sort_keys": False}
    return environment
