"""The values of a recipe before they are checked, and the place where each was written.

A dotted key names a value: `training.learning_rate`, `data.train.0.path`; "" is the whole document.
"""

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from olmoe_ft.recipe.errors import UserError


class Place(NamedTuple):
    """Where a value was written: a line (from 1) of a file; no file means the command line."""

    file: str = ""
    line: int = 0

    def __str__(self) -> str:
        return f"{self.file}:{self.line}" if self.file else "override"


OVERRIDE = Place()


@dataclass(frozen=True)
class Document:
    """A mapping as YAML gives it (plain dicts, lists and scalars), and the place of every dotted key in it."""

    values: dict[str, Any]
    places: dict[str, Place]

    def place(self, key: str = "") -> Place:
        """The place of a value, or of the nearest section around it that was written somewhere."""
        while key and key not in self.places:
            key = key.rpartition(".")[0]
        return self.places.get(key, OVERRIDE)

    def at(self, key: str) -> "Document":
        """The mapping that a key names, as a document of its own."""
        values: Any = self.values
        for part in key.split("."):
            values = values[int(part)] if isinstance(values, list) else values[part]
        inside = [name for name in self.places if f"{name}.".startswith(f"{key}.")]
        return Document(values, {name[len(key) + 1 :]: self.places[name] for name in inside})

    def only(self, keys: set[str]) -> "Document":
        """The document with just these top-level keys."""
        values = {key: value for key, value in self.values.items() if key in keys}
        kept = {"", *keys}
        return Document(values, {key: place for key, place in self.places.items() if key.partition(".")[0] in kept})


def merge(*layers: Document) -> Document:
    """Merge documents; later ones win. Mappings merge key by key, everything else is replaced."""
    values: dict[str, Any] = {}
    places: dict[str, Place] = {}
    for layer in layers:
        places = {key: place for key, place in places.items() if not _covered(key, layer.values)} | layer.places
        values = _merged(values, layer.values)
    return Document(values, places)


def assign(document: Document, key: str, value: Any) -> Document:
    """The document with one value replaced. Missing sections on the way are created, missing list items are not.

    Raises:
        UserError: the key goes through a value that is not a section, or names an item that a list does not have.
    """
    values = copy.deepcopy(document.values)
    places = {name: place for name, place in document.places.items() if not name.startswith(f"{key}.")}
    *sections, last = key.split(".")
    node: Any = values
    for depth, part in enumerate(sections):
        name = _item_name(node, part, key)
        if isinstance(node, dict) and node.get(part) is None:
            node[part] = {}
            places[".".join(sections[: depth + 1])] = OVERRIDE
        node = node[name]
    node[_item_name(node, last, key)] = value
    return Document(values, places | {key: OVERRIDE})


def _item_name(node: Any, part: str, key: str) -> str | int:
    if isinstance(node, dict):
        return part
    if not isinstance(node, list):
        raise UserError(f"{OVERRIDE}: {key}: found `{part}` below {node!r}, which has no keys; set a key of a section")
    if not part.isdecimal() or int(part) >= len(node):
        raise UserError(f"{OVERRIDE}: {key}: found `{part}`; allowed: 0 to {len(node) - 1}, the items of this list")
    return int(part)


def _covered(key: str, above: Any) -> bool:
    """Whether a value of a lower layer is replaced as a whole, together with the section around it."""
    for part in key.split("."):
        if not isinstance(above, Mapping):
            return True
        if part not in above:
            return False
        above = above[part]
    return False


def _merged(lower: dict[str, Any], upper: dict[str, Any]) -> dict[str, Any]:
    both = dict(lower)
    for key, value in upper.items():
        below = both.get(key)
        both[key] = _merged(below, value) if isinstance(below, dict) and isinstance(value, dict) else value
    return both
