"""What a page is made of. Sections return these plain values, and `templates/` draws them; nothing else knows HTML.

Texts are as they were found. `page.py` cleans every one of them, at one place: what would steer a terminal or a browser
becomes visible, and what must not leave this machine is taken out.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

Tone = Literal["", "good", "warn", "bad"]


@dataclass(frozen=True)
class Cell:
    """A value with what a person may want to know of it."""

    text: str
    note: str = ""
    """In small print behind it, e.g. "± 1.5" or "planned 0.11"."""
    tone: Tone = ""
    bar: float | None = None
    """A bar behind the text: its length, from 0 to 1."""
    link: str = ""
    """A file that the text leads to, as a relative path from the page's own folder."""


@dataclass(frozen=True)
class Column:
    """A column of a table."""

    name: str
    number: bool = False
    """Whether its cells are numbers: to the right, of equal width."""


@dataclass(frozen=True)
class Table:
    """Rows under headings; the first column names the row."""

    title: str
    columns: Sequence[Column]
    rows: Sequence[Sequence[Cell | str]]
    note: str = ""


@dataclass(frozen=True)
class Facts:
    """Names and values, one a line."""

    title: str
    pairs: Sequence[tuple[str, Cell | str]]
    note: str = ""


@dataclass(frozen=True)
class Prose:
    """A paragraph of plain text."""

    text: str


@dataclass(frozen=True)
class Code:
    """A text in a fixed-width font, with a button that copies it."""

    title: str
    text: str | dict[str, Any]
    """Values are written as YAML once they are cleaned: YAML folds and escapes texts, which then look like others."""


@dataclass(frozen=True)
class Series:
    """One line of a chart, or its points. `x` rises."""

    name: str
    x: Sequence[float]
    y: Sequence[float | None]
    """None is a gap, as where a number was not finite."""
    points: bool = False
    """Points with nothing between them: evaluations."""
    dashed: bool = False
    """A line to compare with, as what was planned; never smoothed."""
    errors: Sequence[float] | None = None
    """Standard errors of points."""
    group: str = ""
    """Series of one group have one colour: those of one run, where several are shown."""


@dataclass(frozen=True)
class Curves:
    """Values over steps."""

    title: str
    series: Sequence[Series]
    unit: str = ""
    x_name: str = "step"
    smooth: bool = True
    """Whether smoothing makes sense: not of a learning rate."""
    log: bool = False
    """Whether it is first drawn on a logarithmic scale."""
    note: str = ""


@dataclass(frozen=True)
class Histogram:
    """How many fall between two edges, for one thing or several side by side."""

    title: str
    edges: Sequence[float]
    """One more than there are counts."""
    counts: dict[str, Sequence[int]]
    unit: str = ""
    marks: dict[str, float] = field(default_factory=dict)
    """Named places on the axis: a limit, a median."""
    note: str = ""


@dataclass(frozen=True)
class HeatMap:
    """A value for each layer and expert. The maps of one `subject` are shown beside each other, one of each `kind`."""

    subject: str
    """Whose tokens: all of the probe, a data source, a benchmark."""
    kind: str
    """"before", "after", "difference", or a run's name."""
    values: Sequence[Sequence[float]]
    """(layers, experts): in balanced loads (1 is an even share), or the difference of two such."""
    difference: bool = False
    """Whether 0 is the middle of its colours; else 1 is."""


@dataclass(frozen=True)
class HeatMaps:
    """Maps of layers and experts."""

    title: str
    maps: Sequence[HeatMap]
    note: str = ""
    unit: str = "x the balanced load"
    row_name: str = "layer"
    column_name: str = "expert"


Span = tuple[str, str]
"""What the model does with a part of a row (a key of `STYLES` in `data/audit_report.py`), and the text of the part."""


@dataclass(frozen=True)
class TrainingRow:
    """A row as the model sees it."""

    title: str
    spans: Sequence[Span]


@dataclass(frozen=True)
class Answer:
    """What a model has said."""

    label: str
    """"before", "after", or a run's name."""
    text: str
    right: bool | None = None


@dataclass(frozen=True)
class Question:
    """A question and the answers of several models, or of one before and after training."""

    task: str
    prompt: str
    expected: str
    answers: Sequence[Answer]
    note: str = ""


@dataclass(frozen=True)
class Questions:
    """Samples side by side."""

    title: str
    questions: Sequence[Question]
    note: str = ""


@dataclass(frozen=True)
class Fold:
    """Blocks that are shown when asked for."""

    title: str
    blocks: Sequence["Block"]
    open: bool = False


Block = Table | Facts | Prose | Code | Curves | Histogram | HeatMaps | TrainingRow | Questions | Fold


@dataclass(frozen=True)
class Section:
    """A part of a page with a heading, to which its contents link."""

    id: str
    """Its anchor: lower-case letters and hyphens."""
    title: str
    blocks: Sequence[Block]
    lead: str = ""
    """One or two sentences under the heading: what is to be seen here."""


@dataclass(frozen=True)
class Finding:
    """A sentence of the list on top of a page, the most serious first."""

    tone: Tone
    text: str
    section: str = ""
    """The id of the section that shows more."""


@dataclass(frozen=True)
class Page:
    """All of a page."""

    title: str
    kind: str
    """What it is of, in small print above the title: "SFT run", "3 runs side by side"."""
    status: Cell
    """Whether it has finished, is training, or has failed."""
    tiles: Sequence[tuple[str, Cell]]
    """The four to eight figures that matter most."""
    findings: Sequence[Finding]
    sections: Sequence[Section]
    foot: str = ""
    """Which version wrote it, of what files, when."""
