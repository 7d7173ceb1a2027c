"""The audit as a person reads it: a table, findings, and rows as the model sees them; and `data_report.json`."""

from collections.abc import Iterator
from typing import Any

from rich.markup import escape
from rich.panel import Panel
from rich.table import Table
from rich.text import Text
from transformers import PreTrainedTokenizerBase

from olmoe_ft.data.audit import Audit, SourceAudit
from olmoe_ft.data.findings import findings_of_evaluation, findings_of_training, first_keys
from olmoe_ft.data.heldout import OWN
from olmoe_ft.data.mixture import Mixture
from olmoe_ft.data.terminal import Console, printable

SHOWN_ROWS = 3
SHOWN_CHARACTERS = 1500
STYLES = {"learned": "green", "chosen": "green", "rejected": "red", "good": "green", "bad": "red", "seen": "dim"}

Span = tuple[str, str]  # what the model does with a part of a row (a key of STYLES), and the text of the part


def data_report(
    audit: Audit, mixture: Mixture, tokenizer: PreTrainedTokenizerBase, evaluation: Audit | None = None
) -> dict[str, Any]:
    """The content of `data_report.json`: the numbers of every source, the findings, and rows as the model sees them."""
    rows = [[list(span) for span in spans] for spans in shown_rows(mixture, tokenizer)]
    report = {
        "rows": len(mixture.rows),
        **audit.as_dict(),
        "findings": findings_of_training(audit, mixture),
        "examples": rows,
    }
    if evaluation is not None:
        report["evaluation"] = {**evaluation.as_dict(), "findings": findings_of_evaluation(evaluation, mixture)}
    return report


def print_audit(
    audit: Audit,
    mixture: Mixture,
    tokenizer: PreTrainedTokenizerBase,
    console: Console,
    evaluation: Audit | None = None,
) -> None:
    """Print the numbers and findings of the training and evaluation rows, and three training rows."""
    _print_numbers("Training data", audit, console, findings_of_training(audit, mixture))
    if evaluation is not None:
        _print_numbers("Evaluation data", evaluation, console, findings_of_evaluation(evaluation, mixture))
    shown = shown_rows(mixture, tokenizer)
    for number, spans in enumerate(shown, 1):
        console.print(
            Panel(_coloured(spans), title=f"row {number} of the mixture, as the model sees it", title_align="left")
        )
    console.print(", ".join(f"[{STYLES[kind]}]{kind}[/]" for kind in _kinds(shown)))


def _print_numbers(title: str, audit: Audit, console: Console, found: list[str]) -> None:
    """The table, how the rows were read, what was dropped, and the findings."""
    console.print(_table(title, audit, dict(_lines(audit.sources))))
    if benchmarks := [group for group in audit.groups if group != OWN]:
        title = "Rows with a question of a benchmark (questions found)"
        console.print(_table(title, audit, {name: _found(audit.sources, name) for name in benchmarks}))
    for source in audit.sources:
        read = f"read as {first_keys(source.forms)}" if source.forms else "no row could be read"
        unread = f"; keys that were not read: {first_keys(source.unread)}" if source.unread else ""
        console.print(f"[dim]{escape(printable(f'{source.path}: {read}{unread}'))}[/]", highlight=False)
        for problem in source.problems:
            places = ", ".join(problem.places) + (" …" if problem.more else "")
            line = f"dropped as {problem.reason}: {problem.rows:,} rows ({places}): {problem.problem}"
            console.print(f"[yellow]{escape(printable(line))}[/]", highlight=False)
    for finding in found:
        console.print(f"[yellow]check:[/] {escape(printable(finding))}", highlight=False)


def _table(title: str, audit: Audit, lines: dict[str, list[str]]) -> Table:
    """A column for each source."""
    table = Table(title=title)
    table.add_column("", overflow="fold")
    for source in audit.sources:
        table.add_column(escape(printable(source.path)), justify="right", overflow="fold")
    for name, values in lines.items():
        table.add_row(escape(printable(name)), *values)
    return table


def _found(sources: list[SourceAudit], benchmark: str) -> list[str]:
    found = [source.overlaps[benchmark] for source in sources]
    return [f"{one['rows']:,} ({one['prompts']:,})" for one in found]


def shown_rows(mixture: Mixture, tokenizer: PreTrainedTokenizerBase) -> list[list[Span]]:
    """The first rows of the mixture, split by what the model does with each part."""
    rows = mixture.rows.select(range(min(SHOWN_ROWS, len(mixture.rows))))
    return [[(kind, tokenizer.decode(ids)) for kind, ids in mixture.stage.spans(row)] for row in rows]


def _kinds(shown: list[list[Span]]) -> list[str]:
    return list(dict.fromkeys(kind for spans in shown for kind, _ in spans))


def _coloured(spans: list[Span]) -> Text:
    text = Text()
    for kind, piece in spans:
        text.append(printable(piece), style=STYLES[kind])
        if kind == "chosen":
            text.append("\n")
    if (more := len(text) - SHOWN_CHARACTERS) > 0:
        text.truncate(SHOWN_CHARACTERS)
        text.append(f" … and {more:,} more characters", style="italic")
    return text


def _lines(sources: list[SourceAudit]) -> Iterator[tuple[str, list[str]]]:
    """The lines of the table; "chosen equals rejected" only if there is such a pair."""
    always = {
        "rows": [f"{source.rows:,}" for source in sources],
        "rows drawn for an epoch": [f"{source.drawn:,}" for source in sources],
        "turns": [f"{source.turns:,}" for source in sources],
        "tokens": [f"{source.tokens:,}" for source in sources],
        "length of a row: median": [f"{source.tokens_p50:,.0f}" for source in sources],
        "  95% are below": [f"{source.tokens_p95:,.0f}" for source in sources],
        "  longest": [f"{source.tokens_max:,}" for source in sources],
        "supervised tokens": [
            f"{source.supervised_tokens:,} ({source.supervised_tokens / max(1, source.tokens):.0%})"
            for source in sources
        ],
        "truncated rows": [f"{source.truncated_rows:,}" for source in sources],
        "dropped rows": [f"{sum(source.dropped.values()):,}" for source in sources],
        "rows with an answer without EOS": [f"{source.without_eos:,}" for source in sources],
        "rows with BOS twice": [f"{source.double_bos:,}" for source in sources],
        "exact copies": [f"{source.exact_copies:,}" for source in sources],
        "near copies": [f"{source.near_copies:,}" for source in sources],
        "rows with a held-out prompt": [f"{source.overlaps.get(OWN, {}).get('rows', 0):,}" for source in sources],
    }
    yield from always.items()
    for name in dict.fromkeys(name for source in sources for name in source.tallies):
        yield name, [str(source.tallies[name]) for source in sources]
    if any(source.same_answers for source in sources):
        yield "chosen equals rejected", [f"{source.same_answers:,}" for source in sources]
