"""A page's table in the terminal, in as many parts as its width needs."""

from collections.abc import Iterator, Sequence

from rich.cells import cell_len
from rich.table import Table as Printed
from rich.text import Text

from olmoe_ft.data.terminal import Console, printable
from olmoe_ft.report.page.blocks import Cell, Column, Table, Tone

STYLES: dict[Tone, str] = {"": "", "good": "green", "warn": "yellow", "bad": "red"}
PADDING = 2  # between two columns
WIDEST = 44  # columns of text are folded there


def print_table(table: Table, console: Console) -> None:
    """Print a table; columns that do not fit beside the first go into another one below, with the first again."""
    rows = [[_text(cell) for cell in row] for row in table.rows]
    widths = [_width(column, [row[at] for row in rows]) for at, column in enumerate(table.columns)]
    widths[0] = min(widths[0], console.width // 3)
    for part in _parts(widths, console.width):
        printed = Printed(box=None, padding=(0, PADDING, 0, 0), pad_edge=False, header_style="bold")
        for at in part:
            right = table.columns[at].number
            width = min(widths[at], console.width)
            printed.add_column(Text(printable(table.columns[at].name)), justify="right" if right else "left",
                               width=width, overflow="fold")  # fmt: skip
        for row in rows:
            printed.add_row(*(row[at] for at in part))
        console.print(printed)
        console.print()
    if table.note:
        console.print(Text(printable(table.note), style="dim"))


def _parts(widths: Sequence[int], space: int) -> Iterator[list[int]]:
    """The columns of each part: the first one, and as many others in their order as fit; at least one."""
    part, used = [0], widths[0]
    for at in range(1, len(widths)):
        if len(part) > 1 and used + PADDING + widths[at] > space:
            yield part
            part, used = [0], widths[0]
        part.append(at)
        used += PADDING + widths[at]
    yield part


def _width(column: Column, cells: Sequence[Text]) -> int:
    """What a column needs: of numbers all of it, of texts no more than is pleasant to read."""
    longest = max((cell_len(line) for cell in cells for line in cell.plain.split("\n")), default=0)
    heading = max(map(cell_len, column.name.split()), default=0)
    return max(longest, min(heading, WIDEST)) if column.number else max(min(longest, WIDEST), min(heading, WIDEST))


def _text(cell: Cell | str) -> Text:
    if isinstance(cell, str):
        return Text(printable(cell))
    note = f" {cell.note}" if cell.text and cell.note else cell.note
    return Text.assemble((printable(cell.text), STYLES[cell.tone]), (printable(note), "dim"))
