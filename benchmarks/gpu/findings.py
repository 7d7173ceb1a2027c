"""What a run finds: a JSON line each, a table of them all, and whether anything is wrong."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from rich.table import Table

DRY = "dry run on a CPU: figures mean nothing"
WORDS = {True: "right", False: "[bold red]WRONG[/]", None: ""}


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at."""

    part: str
    what: str
    ok: bool | None = None
    """None where there is nothing to judge: a figure, or what was not looked at."""
    figures: dict[str, Any] = field(default_factory=dict)
    """Anything that JSON holds; `error` is one line, and `skipped` says why nothing was looked at."""

    def to_json(self) -> str:
        return json.dumps({"part": self.part, "what": self.what, "ok": self.ok, **self.figures})

    @classmethod
    def from_json(cls, line: str) -> "Finding":
        values = json.loads(line)
        return cls(values.pop("part"), values.pop("what"), values.pop("ok"), values)


def one_line(error: BaseException) -> str:
    """An exception's type and the first line of what it says."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0][:300]}" if lines else type(error).__name__


def exit_code(findings: Sequence[Finding]) -> int:
    """1 where something is wrong."""
    return int(any(finding.ok is False for finding in findings))


def findings_table(findings: Sequence[Finding], dry: bool) -> Table:
    """A row a finding; of a dry run it says that it is one."""
    counts = [sum(finding.ok is judged for finding in findings) for judged in (True, False)]
    caption = f"{counts[0]} right, {counts[1]} wrong, {len(findings) - sum(counts)} not judged"
    table = Table("part", "what", "", "figures", title=DRY if dry else "GPU run", caption=caption)
    before = ""
    for finding in findings:
        if finding.part != before:
            table.add_section()
        table.add_row(finding.part if finding.part != before else "", finding.what, WORDS[finding.ok], _cell(finding))
        before = finding.part
    return table


def _cell(finding: Finding) -> str:
    """Figures as `name value`; lists and longer texts stand in the JSON lines alone."""
    shown = {name: value for name, value in finding.figures.items() if not isinstance(value, list | dict)}
    return ", ".join(
        f"{name} {value:,.4g}" if isinstance(value, float) else f"{name} {value}" for name, value in shown.items()
    )
