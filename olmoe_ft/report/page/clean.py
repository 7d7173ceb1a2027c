"""The one place where every text of a page is made safe to show, and what is private is taken out of it."""

import dataclasses
from collections.abc import Callable
from typing import Any, TypeVar

from olmoe_ft.data.terminal import printable
from olmoe_ft.report.page.blocks import Answer, Question, TrainingRow
from olmoe_ft.report.private.private import Private

OF_ROWS = {TrainingRow: ("spans",), Question: ("prompt", "expected"), Answer: ("text",)}
"""The data's or a model's own words, in which a path is no secret; a title beside them may name a file here."""

Shown = TypeVar("Shown")


def cleaned(shown: Shown, private: Private) -> Shown:
    """A page, or any of its blocks, with all of its texts cleaned, names of a mapping included.

    Args:
        shown: a dataclass of `blocks.py`. It is left as it is.
        private: what is taken out of a text.
    Returns:
        a copy of the same type, with lists for its sequences.
    """
    return _walk(shown, private.field, private)


def _walk(value: Any, clean: Callable[[str], str], private: Private) -> Any:
    if isinstance(value, str):
        return printable(clean(value))
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        rows = OF_ROWS.get(type(value), ())
        changes = {
            one.name: _walk(getattr(value, one.name), private.row if one.name in rows else clean, private)
            for one in dataclasses.fields(value)
        }
        return dataclasses.replace(value, **changes)
    if isinstance(value, dict):
        found: dict[Any, Any] = {}
        for name, inner in value.items():
            found[_unused(_walk(name, clean, private), found)] = _walk(inner, clean, private)
        return found
    if isinstance(value, list | tuple):
        return [_walk(inner, clean, private) for inner in value]
    return value


def _unused(name: Any, used: dict[Any, Any]) -> Any:
    """The name, numbered where two names have become one."""
    number = 2
    unused = name
    while unused in used:
        unused = f"{name} ({number})"
        number += 1
    return unused
