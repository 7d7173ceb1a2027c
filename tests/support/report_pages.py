"""Pages for tests of how a page is drawn: one with every block, one with hostile texts in all of them, a large one."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np

from olmoe_ft.report.page.blocks import (
    Answer,
    Block,
    Cell,
    Code,
    Column,
    Curves,
    Facts,
    Finding,
    Fold,
    HeatMap,
    HeatMaps,
    Histogram,
    Page,
    Prose,
    Question,
    Questions,
    Section,
    Series,
    Table,
    TrainingRow,
)
from olmoe_ft.report.page.render import write_page
from olmoe_ft.report.private.private import private_here

HOSTILE = (
    "<script>window.pwned = 1</script>",
    "</script><script>window.pwned = 2</script>",
    "<!--<script>",
    "<img src=x onerror='window.pwned = 3'>",
    '"><svg onload=window.pwned=4>',
    "' onfocus='window.pwned = 5' autofocus='",
    "{{7*7}} {% raw %} ${7*7}",
    "javascript:window.pwned=6",
    "&lt;b&gt; &amp; &#x3c;",
    "<b><i><table><td></div></main></body>",
    "</style><style>* { display: none }</style>",
    "</textarea></title><base href='https://example.invalid/'>",
    "null \x00 bell \x07 carriage\rreturn",
    "\x1b[31mred\x1b]0;title\x07",
    "\u202ereversed\u202c \u2066isolated",
    "line\u2028paragraph\u2029end \ufeff\u200b",
    "lone \ud800 surrogate",
    "👩‍🔬 日本語 العربية e\u0301",
    "long" * 100,
)


def curves() -> list[Curves]:
    """With all kinds of series, gaps, a single point, and no value at all."""
    steps = list(range(0, 1000, 10))
    noise = np.random.default_rng(0).normal(0, 0.1, len(steps))
    falling = [4 / (1 + step / 100) + float(one) + 0.3 for step, one in zip(steps, noise, strict=True)]
    held_out = Series("held out", [0, 500, 990], [4.2, 1.2, 0.8], points=True, errors=[0.2, 0.1, 0.1])
    return [
        Curves("Loss", [Series("loss", steps, falling), held_out], unit="nats", note="On 40 held-out rows."),
        Curves(
            "Speed",
            [Series("measured", steps, falling), Series("planned", [0, 990], [2, 2], dashed=True)],
            smooth=False,
        ),
        Curves("With gaps", [Series("loss", [0, 1, 2, 3, 4], [1, None, 2, None, None])], log=True),
        Curves("One point", [Series("loss", [7], [1.5])]),
        Curves("No values", [Series("loss", [1, 2], [None, None])], log=True),
        Curves("No series", []),
        Curves(
            "Two runs",
            [
                Series("loss", steps, falling, group="first"),
                Series("loss", steps[:50], falling[:50], group="second"),
                Series("held out", [500], [1.0], points=True, group="second"),
            ],
        ),
    ]


def heat_maps(layers: int = 16, experts: int = 64) -> HeatMaps:
    """Loads before and after, their difference, and a subject that has an "after" alone."""
    before = np.random.default_rng(0).gamma(2, 0.5, (layers, experts))
    after = before**2
    return HeatMaps(
        "Load of the experts",
        [
            HeatMap("all", "before", before.tolist()),
            HeatMap("all", "after", after.tolist()),
            HeatMap("all", "difference", (after - before).tolist(), difference=True),
            HeatMap("gsm8k", "after", after.tolist()),
        ],
        note="Of a probe of 100 rows.",
    )


def every_block() -> Page:
    """A page in which everything appears that a page can have."""
    rows = [["first", Cell("1,000", note="± 3", bar=0.5)], ["second", Cell("7", tone="bad")]]
    table = Table("Scores", [Column("task"), Column("score", number=True)], rows, note="Of 100 questions.")
    facts = Facts("Cost", [("tokens", "2.1 M"), ("energy", Cell("none", note="no meter", tone="warn"))])
    lengths = Histogram(
        "Lengths", [0, 10, 20, 40, float("inf")], {"rows": [5, 0, 1, 2]}, "tokens", {"median": 8.0, "limit": 40.0}
    )
    row = TrainingRow("A row", [("seen", "<|user|>\nhi"), ("learned", "hello"), ("chosen", "a"), ("rejected", "b")])
    answers = [Answer("before", "5", False), Answer("after", "4\n" * 40, True), Answer("other", "")]
    questions = Questions("Samples", [Question("sums", "2 + 2 =", "4", answers, note="row 1")], note="Three.")
    code = Code("Command", "olmoe-ft train recipes/tiny/sft.yaml \\\n    training.seed=1")
    return Page(
        title="tiny-sft",
        kind="SFT run",
        status=Cell("Finished", note="in 3 min", tone="good"),
        tiles=[("loss", Cell("0.17", note="from 4.3")), ("right", Cell("91%", tone="good", bar=0.91))],
        findings=[
            Finding("bad", "It is worse.", "numbers"),
            Finding("warn", "Rows were dropped."),
            Finding("good", "Fine.", "curves"),
            Finding("", "As a note."),
        ],
        sections=[
            Section("numbers", "Numbers", [table, facts, facts, Prose("A paragraph."), code], lead="What it is."),
            Section("curves", "Curves", curves(), lead="All of them."),
            Section("data", "Data", [lengths, two_histograms(), row, questions]),
            Section("experts", "Experts", [heat_maps(), Fold("More", [heat_maps(4, 16), *curves()[:1], lengths])]),
        ],
        foot="Written by a test.",
    )


def two_histograms() -> Histogram:
    """Two counts side by side in ten bins."""
    return Histogram("Margins", list(range(11)), {"chosen": list(range(10)), "rejected": [9 - i for i in range(10)]})


def hostile_page() -> Page:
    """`every_block` with each of the hostile texts in every text of it, but for those that code chooses."""
    return _with_hostile_texts(every_block())


def large_page() -> Page:
    """40 heat maps of 16 x 64 and 20 charts of 2,000 points."""
    random = np.random.default_rng(0)
    maps = [HeatMap(f"source {number}", "after", random.gamma(2, 0.5, (16, 64)).tolist()) for number in range(40)]
    charts = [
        Curves(f"Metric {number}", [Series("value", list(range(2000)), random.normal(size=2000).tolist())])
        for number in range(20)
    ]
    page = every_block()
    sections = [Section("maps", "Maps", [HeatMaps("Load", maps)]), Section("charts", "Charts", charts)]
    return dataclasses.replace(page, findings=[], sections=sections)


def one_section(folder: Path, *blocks: Block) -> Path:
    """The file of a page that has one section, "part", with these blocks."""
    page = Page("a", "run", Cell("finished"), [], [], [Section("part", "Part", blocks)])
    write_page(page, folder / "page.html", private_here([]))
    return folder / "page.html"


CHOSEN = {"tone", "id", "section"}
"""Fields whose values are our code's alone."""


def _with_hostile_texts(value: Any) -> Any:
    if isinstance(value, str):
        return f"{value} " + " ".join(HOSTILE)
    if dataclasses.is_dataclass(value):
        names = [one.name for one in dataclasses.fields(value) if one.name not in CHOSEN]
        return dataclasses.replace(value, **{name: _with_hostile_texts(getattr(value, name)) for name in names})
    if isinstance(value, dict):
        return {_with_hostile_texts(name): inner for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_with_hostile_texts(inner) for inner in value)
    return value
