"""How many runs survived what, as a table on the screen and in docs/reliability.md."""

from collections.abc import Iterable
from dataclasses import dataclass

from rich.table import Table

from torture.configurations import REPOSITORY
from torture.damages import Damage
from torture.trial import Verdict

DOCUMENT = REPOSITORY / "docs/reliability.md"
START, END = "<!-- torture: begin -->\n", "<!-- torture: end -->\n"
COLUMNS = ("", "", "tried", "exact", "refused", "lost")


@dataclass
class Line:
    section: str
    kind: str
    tried: int = 0
    exact: int = 0
    refused: int = 0

    def cells(self) -> tuple[str, ...]:
        lost = self.tried - self.exact - self.refused
        return self.section, self.kind, *(str(number) for number in (self.tried, self.exact, self.refused, lost))


def lines(verdicts: Iterable[Verdict]) -> list[Line]:
    """One for all kills and one for all damages, then one for each kind of each section; each case is in several."""
    found: dict[tuple[str, str], Line] = {}
    sections = ("all", "kill", "moment", "damage", "damaged", "run")
    for verdict in verdicts:
        case = verdict.case
        run = f"{case.configuration.stage} {case.configuration.method} {case.configuration.shape}"
        for section, kind in (("all", "damages" if isinstance(case, Damage) else "kills"), *case.kinds, ("run", run)):
            line = found.setdefault((section, kind), Line(section, kind))
            line.tried += 1
            line.exact += not verdict.faults and not verdict.refused
            line.refused += bool(verdict.refused)
    return [found[key] for key in sorted(found, key=lambda key: (sections.index(key[0]), key[1]))]


def screen_table(verdicts: Iterable[Verdict], title: str) -> Table:
    table = Table(*COLUMNS, title=title)
    before = ""
    for line in lines(verdicts):
        section, *cells = line.cells()
        if section != before:
            table.add_section()
        table.add_row("" if section == before else section, *cells)
        before = section
    return table


def write_document(verdicts: Iterable[Verdict], title: str) -> None:
    """Put the table between the marks in docs/reliability.md."""
    before, rest = DOCUMENT.read_text().split(START)
    after = rest.split(END)[1]
    rows = "".join("| " + " | ".join(line.cells()) + " |\n" for line in lines(verdicts))
    head = "| | | tried | exact | refused | lost |\n| --- | --- | ---: | ---: | ---: | ---: |\n"
    DOCUMENT.write_text(f"{before}{START}\n{title}\n\n{head}{rows}\n{END}{after}")
