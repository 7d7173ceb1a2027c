"""`data_report.json` as a page reads it: what an older version has not written is empty, and what is odd is damage."""

from typing import Any

from pydantic import BaseModel, Field, ValidationError

from olmoe_ft.report.files.run_files import RunFiles
from olmoe_ft.report.page.blocks import Span
from olmoe_ft.stages import Tally


class Lengths(BaseModel):
    """A histogram of the lengths of rows."""

    edges: list[int]
    counts: list[int]


class Dropped(BaseModel):
    """Rows that are not trained on, by what is wrong with them."""

    reason: str
    problem: str = ""
    rows: int
    places: list[str] = Field(default_factory=list)


class Overlap(BaseModel):
    """Rows that contain questions of one group."""

    rows: int
    kept: int
    prompts: int


class Source(BaseModel):
    """One source; see `olmoe_ft.data.audit.SourceAudit`."""

    path: str
    rows: int
    drawn: int = 0
    unread: dict[str, int] = Field(default_factory=dict)
    doubtful: dict[str, int] = Field(default_factory=dict)
    dropped: dict[str, int] = Field(default_factory=dict)
    problems: list[Dropped] = Field(default_factory=list)
    tokens: int = 0
    tokens_p50: float = 0
    tokens_p95: float = 0
    tokens_max: int = 0
    lengths: Lengths | None = None
    supervised_tokens: int = 0
    truncated_rows: int = 0
    truncated_answer_tokens: int = 0
    overlaps: dict[str, Overlap] = Field(default_factory=dict)
    tallies: dict[str, Tally] = Field(default_factory=dict)

    @property
    def lost(self) -> int:
        """Rows that are not trained on."""
        return sum(self.dropped.values())


class DataReport(BaseModel):
    """The rows that a stage trains on, or those that it is evaluated on."""

    rows: int = 0
    """Of the mixture, in an epoch."""
    sources: list[Source]
    groups: dict[str, int] = Field(default_factory=dict)
    """The number of questions that were looked for, by group."""
    positions: int | None = None
    tallies: dict[str, Tally] = Field(default_factory=dict)
    """Of the mixture."""
    findings: list[str] = Field(default_factory=list)
    examples: list[list[Span]] = Field(default_factory=list)
    evaluation: "DataReport | None" = None


def data_report(run: RunFiles) -> DataReport | None:
    """The report on a run's data; None where there is none, or where it is damaged, which is then noted."""
    if run.data_report is None:
        return None
    try:
        return DataReport.model_validate(run.data_report)
    except ValidationError as error:
        place = ".".join(map(str, error.errors()[0]["loc"]))
        note(run, f"{run.path / 'data_report.json'} cannot be read: {place} is not what it should be")
        return None


def note(run: RunFiles, sentence: str) -> None:
    """Name a file that cannot be read, once."""
    if sentence not in run.unreadable:
        run.unreadable.append(sentence)


def mapping(value: Any) -> dict[str, Any]:
    """A part of a file that should be an object; empty where it is something else."""
    return value if isinstance(value, dict) else {}
