"""Texts of a run as Markdown: cleaned of what is private, and never read as Markdown or HTML themselves."""

import re
from collections.abc import Iterable, Sequence

from olmoe_ft.data.terminal import printable
from olmoe_ft.report.private import Private

MEANS_SOMETHING = re.compile(r"([\\`*_\[\]<>|~$#&])")


class Markdown:
    """Writes Markdown.

    Args:
        private: what must not be in it.
    """

    def __init__(self, private: Private) -> None:
        self.private = private

    def plain(self, text: str) -> str:
        """A text in one line."""
        return MEANS_SOMETHING.sub(r"\\\1", self.line(text))

    def code(self, text: str) -> str:
        """A name or a value in one line, in a font of fixed width."""
        line = self.line(text).replace("|", "\\|")
        fence = "`" * (_longest_run(line) + 1)
        space = " " if "`" in line else ""
        return f"{fence}{space}{line or '-'}{space}{fence}"

    def block(self, text: str, language: str = "") -> str:
        """Lines of code."""
        fence = "`" * max(3, _longest_run(text) + 1)
        return f"{fence}{language}\n{printable(self.private.field(text)).rstrip()}\n{fence}"

    def table(self, names: Sequence[str], rows: Iterable[Sequence[str]], numbers: int = 0) -> str:
        """A table of cells that are Markdown already; "" without rows.

        Args:
            numbers: how many of the last columns hold numbers, which are set to the right.
        """
        lines = ["| " + " | ".join(row) + " |" for row in rows]
        if not lines:
            return ""
        marks = ["---"] * (len(names) - numbers) + ["---:"] * numbers
        return "\n".join(["| " + " | ".join(names) + " |", "| " + " | ".join(marks) + " |", *lines])

    def line(self, text: str) -> str:
        """A text in one line, for metadata: cleaned, and not marked as plain text."""
        return printable(" ".join(self.private.field(text).split()))


def _longest_run(text: str) -> int:
    return max(map(len, re.findall("`+", text)), default=0)
