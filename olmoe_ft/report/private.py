"""What must not leave this machine: keys, host names, local paths. Taken out of every text of a page or a card."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Private:
    """What is private here, and its replacements."""

    def field(self, text: str) -> str:
        """A text of a recipe, a record or a message: paths to elsewhere keep their last part alone."""
        return text

    def row(self, text: str) -> str:
        """A text of the data or of a model: only what is known to be private here, and what looks like a key."""
        return text


def private_here(runs: Sequence[Path]) -> Private:
    """What is private of this machine, its user, and these runs."""
    return Private()
