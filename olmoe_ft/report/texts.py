"""Long texts of a page."""

import re
import string

from olmoe_ft.data.terminal import middle_cut

LEFT_OUT = re.compile(r"\n\[… ([\d,]+) characters are left out …\]\n")
OF_KEYS = string.ascii_letters + string.digits + string.punctuation


class Long(str):
    """A text of which the middle is not shown.

    It stays whole until it has been cleaned (`fitted`): half a key does not look like a key.
    """

    most: int
    """Characters that are shown."""

    def __new__(cls, text: str, most: int) -> "Long":
        made = super().__new__(cls, text)
        made.most = most
        return made


def fitted(text: str, cleaned: str | None = None) -> str:
    """A text as it is shown.

    Args:
        text: what a section has made.
        cleaned: the same without what is private, for whatever leaves this machine.
    """
    shown = text if cleaned is None else cleaned
    return cut(shown, text.most) if isinstance(text, Long) else shown


def cut(text: str, most: int) -> str:
    """A text without the middle of what is longer than `most` characters; how many are left out is said there."""
    start, end, left_out = middle_cut(text, most // 2, most // 2)
    return _joined(text, start, end) if left_out else start


def lightened(text: str, most: int) -> str:
    """A text without the middle of what is much too long to be shown, so that many of them fit into memory.

    No word is split, and what is kept is four times what will be shown, so that no edge of it is ever shown.
    """
    start, end, left_out = middle_cut(text, 2 * most, 2 * most)
    return _joined(text, start.rstrip(OF_KEYS), end.lstrip(OF_KEYS)) if left_out else start


def _joined(text: str, start: str, end: str) -> str:
    middle = text[len(start) : len(text) - len(end)]
    before = sum(int(found[1].replace(",", "")) - len(found[0]) for found in LEFT_OUT.finditer(middle))
    return f"{start}\n[… {len(middle) + before:,} characters are left out …]\n{end}"
