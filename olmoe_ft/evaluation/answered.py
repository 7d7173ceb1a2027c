"""What answers to held-out prompts come to: the share that is right, by skill, and the share of each style."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from rich.markup import escape
from rich.table import Table


class Mark(NamedTuple):
    """What is said of one completion."""

    right: bool
    style: str | None
    """The style that it is in, right or wrong; None where it is in none."""


@dataclass(frozen=True)
class Answered:
    """Shares of 1, as they are in a run's `summary.json`."""

    exact_match: float
    styles: dict[str, float]
    """The share of completions in each style, by name."""
    skills: dict[str, float]
    """The exact match of the prompts of each skill, by name."""
    count: int
    """Prompts."""

    @classmethod
    def of(cls, marks: Sequence[tuple[str, Mark]], styles: Sequence[str]) -> "Answered":
        """The score of marked completions.

        Args:
            marks: at least one, each with the skill of its prompt.
            styles: all that a completion could be in.
        """
        by_skill: dict[str, list[bool]] = defaultdict(list)
        by_style = dict.fromkeys(styles, 0)
        for skill, mark in marks:
            by_skill[skill].append(mark.right)
            if mark.style is not None:
                by_style[mark.style] += 1
        return cls(
            exact_match=sum(mark.right for _, mark in marks) / len(marks),
            styles={style: count / len(marks) for style, count in sorted(by_style.items())},
            skills={skill: sum(rights) / len(rights) for skill, rights in sorted(by_skill.items())},
            count=len(marks),
        )

    @classmethod
    def read(cls, values: Any) -> "Answered | None":
        """What a `summary.json` says; None where it holds no score."""
        try:
            return cls(values["exact_match"], values["styles"], values["skills"], values["count"])
        except (KeyError, TypeError):
            return None

    def as_dict(self) -> dict[str, Any]:
        return {
            "exact_match": self.exact_match,
            "styles": self.styles,
            "skills": self.skills,
            "count": self.count,
        }


def answered_table(before: Answered, after: Answered) -> Table:
    """Exact match per skill and the share of each style, before and after training."""
    table = Table(title=f"{after.count} held-out prompts, greedy generation")
    table.add_column("exact match")
    for column in ("before", "after"):
        table.add_column(column, justify="right")
    for skill in after.skills:
        table.add_row(escape(skill), f"{before.skills[skill]:.1%}", f"{after.skills[skill]:.1%}")
    table.add_section()
    table.add_row("[bold]all[/bold]", f"{before.exact_match:.1%}", f"[bold]{after.exact_match:.1%}[/bold]")
    table.add_section()
    for style in after.styles:
        table.add_row(escape(f"style: {style}"), f"{before.styles[style]:.1%}", f"{after.styles[style]:.1%}")
    return table
