"""The section on what a run was trained on."""

from collections.abc import Sequence

from olmoe_ft.recipe.training_fields import default_of, training_fields
from olmoe_ft.report.files.data_report import DataReport, Source, data_report, mapping
from olmoe_ft.report.files.run_files import RunFiles
from olmoe_ft.report.page.blocks import Block, Cell, Column, Fold, Histogram, Section, Table, Tone, TrainingRow
from olmoe_ft.report.texts import Long
from olmoe_ft.stages import STAGES, Tally

KEYS = 10  # unread keys of a source that are named
PART = 4000  # characters of one part of a row: most rows are shown whole, and no page is large for a book among them


def data(run: RunFiles) -> Section | None:
    """What was in the rows; None of a run without a report on its data."""
    if (report := data_report(run)) is None:
        return None
    longest = max_length(run)
    blocks = [*_numbers(report, longest), *_examples(report)]
    if report.evaluation is not None:
        blocks.append(Fold("Evaluation rows", _numbers(report.evaluation, longest)))
    tokens = sum(source.tokens for source in report.sources)
    sources = f"{len(report.sources):,} source{'s' if len(report.sources) > 1 else ''}"
    rows = sum(source.rows for source in report.sources)
    lead = f"{rows:,} rows of {sources} with {tokens:,} tokens. An epoch trains on {report.rows:,} rows."
    return Section("data", "What it was trained on", blocks, lead)


def max_length(run: RunFiles) -> int | None:
    """Tokens to which rows were cut: the recipe's `training.max_length`, or TRL's default. None if they were not."""
    stage, training = str(run.recipe.get("stage")), mapping(run.recipe.get("training"))
    if "max_length" not in training and (stage not in STAGES or "max_length" not in training_fields(stage)):
        return None
    found = training["max_length"] if "max_length" in training else default_of(stage, "max_length")
    return found if isinstance(found, int) else None


def _numbers(report: DataReport, longest: int | None) -> list[Block]:
    found: list[Block | None] = [
        _sources(report.sources),
        _tallies(report),
        _lengths(report, longest),
        _dropped(report.sources),
        _unread(report.sources),
        _overlaps(report),
    ]
    return [block for block in found if block is not None]


def _sources(sources: Sequence[Source]) -> Table:
    names = ("rows", "drawn", "tokens", "learned", "median", "95%", "longest", "truncated", "dropped")
    total = sum(source.drawn for source in sources)
    return Table(
        "Sources",
        [Column("source"), *(Column(name, number=True) for name in names)],
        [_source(source, total) for source in sources],
        "drawn: rows of an epoch, and their share of it. tokens: of all readable rows, before truncation. learned: "
        "tokens that the loss is computed on. median, 95%, longest: tokens of a row before truncation.",
    )


def _source(source: Source, total: int) -> list[Cell | str]:
    share = source.drawn / total if total else 0.0
    learned = source.supervised_tokens / source.tokens if source.tokens else 0.0
    return [
        source.path,
        f"{source.rows:,}",
        Cell(f"{source.drawn:,}", f"{share:.1%}", bar=share),
        f"{source.tokens:,}",
        Cell(f"{learned:.1%}", f"{source.supervised_tokens:,}"),
        f"{source.tokens_p50:,.0f}",
        f"{source.tokens_p95:,.0f}",
        f"{source.tokens_max:,}",
        _of_rows(source.truncated_rows, source.rows),
        _of_rows(source.lost, source.rows),
    ]


def _of_rows(count: int, rows: int) -> Cell:
    tone: Tone = "warn" if count else ""
    return Cell(f"{count:,}", f"{count / rows:.1%}" if count and rows else "", tone)


def _tallies(report: DataReport) -> Table | None:
    """What the stage alone counts; most stages count nothing."""
    names = list(report.tallies)
    rows: list[list[Cell | str]] = [
        [source.path, *(_tally(source.tallies[name]) if name in source.tallies else "" for name in names)]
        for source in report.sources
    ]
    rows.append(["all, in an epoch", *map(_tally, report.tallies.values())])
    columns = [Column("source"), *(Column(name, number=True) for name in names)]
    return (
        Table("Counted for this stage", columns, rows, "With their share of the rows, prompts or answers.")
        if names
        else None
    )


def _tally(tally: Tally) -> Cell:
    return Cell(f"{tally.number:,}", f"{tally.number / tally.of:.1%}" if tally.of else "")


def _lengths(report: DataReport, longest: int | None) -> Histogram | None:
    """The sources over each other; a report of an older version has no lengths."""
    found = [source for source in report.sources if source.lengths is not None]
    if not found or found[0].lengths is None:
        return None
    edges = found[0].lengths.edges
    counts: dict[str, Sequence[int]] = {}
    for source in found:
        if source.lengths and source.lengths.edges == edges and len(edges) == len(source.lengths.counts) + 1:
            counts[_name(source.path, counts)] = source.lengths.counts
    if not counts:
        return None
    limits = {"training.max_length": longest, "positions of the network": report.positions}
    marks = {name: float(limit) for name, limit in limits.items() if limit is not None and limit <= edges[-1]}
    notes = [f"{name}: {limit:,}" for name, limit in limits.items() if limit is not None and name not in marks]
    if (most := max(source.tokens_max for source in found)) >= edges[-1]:
        notes.append(f"the last bar is of all rows from {edges[-2]:,} tokens on, up to {most:,}")
    return Histogram("Lengths of rows, before truncation", edges, counts, "tokens", marks, "; ".join(notes))


def _name(path: str, taken: dict[str, Sequence[int]]) -> str:
    """A source's path; with a number where it is there several times, as with other settings."""
    names = [path, *(f"{path} ({number})" for number in range(2, len(taken) + 2))]
    return next(name for name in names if name not in taken)


def _dropped(sources: Sequence[Source]) -> Table | None:
    rows: list[list[Cell | str]] = []
    for source in sources:
        explained = {problem.reason for problem in source.problems}
        rows += [
            [source.path, one.reason, f"{one.rows:,}", one.problem, ", ".join(one.places)] for one in source.problems
        ]
        others = {reason: count for reason, count in source.dropped.items() if reason not in explained}
        rows += [[source.path, reason, f"{count:,}", "", ""] for reason, count in others.items()]
    columns = [
        Column("source"),
        Column("reason"),
        Column("rows", number=True),
        Column("problem"),
        Column("first places"),
    ]
    return Table("Rows that are not trained on", columns, rows) if rows else None


def _unread(sources: Sequence[Source]) -> Table | None:
    rows: list[list[Cell | str]] = []
    for source in sources:
        if source.unread:
            doubtful = Cell(_keys(source.doubtful), tone="warn" if source.doubtful else "")
            rows.append([source.path, _keys(source.unread), doubtful])
    columns = [Column("source"), Column("keys (rows)"), Column("of these, may matter")]
    return Table("Keys of rows that were not read", columns, rows) if rows else None


def _keys(counts: dict[str, int]) -> str:
    named = ", ".join(f"{key} ({count:,})" for key, count in list(counts.items())[:KEYS])
    return named + (f" and {len(counts) - KEYS} more" if len(counts) > KEYS else "")


def _overlaps(report: DataReport) -> Table | None:
    """A line for each source and group of questions, those without such rows too: it was looked for."""
    rows: list[list[Cell | str]] = []
    for source in report.sources:
        for group, found in source.overlaps.items():
            tone: Tone = "bad" if found.kept else ""
            looked_for = f"of {report.groups[group]:,}" if group in report.groups else ""
            kept, prompts = Cell(f"{found.kept:,}", tone=tone), Cell(f"{found.prompts:,}", looked_for)
            rows.append([group, source.path, f"{found.rows:,}", kept, prompts])
    columns = [Column("questions"), Column("source")]
    columns += [Column(name, number=True) for name in ("rows with one", "trained on", "questions found")]
    return Table("Held-out and benchmark questions in the rows", columns, rows) if rows else None


def _examples(report: DataReport) -> list[Block]:
    return [
        TrainingRow(
            f"Row {number} of the mixture, as the model sees it", [(kind, Long(text, PART)) for kind, text in spans]
        )
        for number, spans in enumerate(report.examples, 1)
    ]
