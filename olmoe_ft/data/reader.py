"""Reads one row and keeps track of which of its keys were read."""

from collections.abc import Iterable, Mapping
from typing import Any

from olmoe_ft.data.rows import Reading, is_blank, key_name, says_nothing
from olmoe_ft.data.unread import ROW, may_matter, refuse_marks_of_the_row, refuse_parts


class RowReader:
    """A row, and the keys of it that were read."""

    def __init__(self, row: Mapping[str, Any], reading: Reading) -> None:
        self.reading = reading
        self.as_text = False
        """Whether some of its turns were given as JSON text."""
        self._read: set[str] = set()
        self._unread: dict[str, bool] = {}  # names of unread keys in the order met, and whether they may matter
        self.row = self.without_ignored(row)

    def get(self, key: str) -> Any:
        """The value of a key, which then counts as read."""
        self._read.add(key)
        return self.row.get(key)

    def is_filled(self, *keys: str) -> bool:
        """Whether none of the keys is blank."""
        return not any(is_blank(self.row.get(key)) for key in keys)

    def without_ignored(self, keys: Mapping[str, Any], place: str = "") -> dict[str, Any]:
        """A row, or a turn or part at `place` in it, without the keys that the recipe ignores; they are counted."""
        for key, value in keys.items():
            if key in self.reading.ignore and not says_nothing(value):
                self._unread[place + key_name(key)] = False
        return {key: value for key, value in keys.items() if key not in self.reading.ignore}

    def note_unread(self, place: str, keys: Mapping[str, Any]) -> None:
        """Count unread keys of a turn or a part; they are named like `messages[].name`."""
        for key, value in keys.items():
            name = place + key_name(key)
            self._unread[name] = self._unread.get(name, False) or may_matter(key, value, set())

    def note_doubt(self, what: str) -> None:
        """Note something that may have been read in another way than it was meant."""
        self._unread[what] = True

    def unread(self, said: Iterable[str]) -> dict[str, list[str]]:
        """The keys that were not read, and which of them may matter (`doubtful`).

        Args:
            said: the texts that were read; a key that only repeats them does not matter.
        Raises:
            RowError: one of them is part of the example.
        """
        left = {key: value for key, value in self.row.items() if key not in self._read and not says_nothing(value)}
        if not left and not self._unread:
            return {"unread": [], "doubtful": []}
        refuse_parts(left, ROW)
        refuse_marks_of_the_row(left)
        texts = {text.strip() for text in said}
        found = {key_name(key): may_matter(key, value, texts) for key, value in left.items()} | self._unread
        return {"unread": list(found), "doubtful": [key for key, matters in found.items() if matters]}
