"""From values to points: a name that says what differs, the overrides, and the checked recipe of each."""

import hashlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from olmoe_ft.recipe import Recipe, load_recipe
from olmoe_ft.recipe.errors import UserError, gathered
from olmoe_ft.recipe.yaml_file import parse_value
from olmoe_ft.sweep.axes import Axis, Values

LONGEST = 80  # characters of a name
DIGEST = 8
UNUSUAL = re.compile(r"[^A-Za-z0-9._+-]+")  # in the name of a folder


@dataclass(frozen=True)
class Point:
    """One run of a sweep."""

    name: str
    """Of its folder in that of the sweep."""
    values: dict[str, str]
    """What differs: key and value of each axis."""
    recipe: Recipe

    @property
    def overrides(self) -> list[str]:
        return [f"{key}={value}" for key, value in self.values.items()]

    @property
    def last_run(self) -> Path:
        """The run directory of its result: of a pipeline that of the last stage."""
        return self.recipe.runs[-1].run_dir


class Points:
    """Makes the points of a sweep.

    Args:
        recipe: its name or file.
        fixed: overrides that all points share.
        sweep: the name of the sweep.
    """

    def __init__(self, recipe: str, fixed: Sequence[str], axes: Sequence[Axis], sweep: str) -> None:
        self.recipe, self.fixed, self.sweep = recipe, tuple(fixed), sweep
        self.axes = tuple(axes)
        self.keys = [axis.key for axis in axes]
        self.short = short_keys(self.keys)
        self.by_name: dict[str, Values] = {}

    def make(self, values: Values) -> Point:
        """The point of some values.

        Raises:
            UserError: the recipe cannot have these values.
        """
        given = dict(zip(self.keys, values, strict=True))
        name = self._name(values)
        overrides = [*self.fixed, *(f"{key}={value}" for key, value in given.items()), f"name={self.sweep}/{name}"]
        return Point(name, given, load_recipe(self.recipe, overrides))

    def make_all(self, combinations: Iterable[Values]) -> tuple[list[Point], list[str]]:
        """The points of some combinations, of the same recipes the first alone; and what was left out for that.

        Raises:
            UserError: with all that is wrong with any of them.
        """
        messages: list[str] = []
        found: dict[str, Point] = {}
        same: list[str] = []
        for values in combinations:
            with gathered(messages):
                point = self.make(values)
                first = found.setdefault(content(point.recipe), point)
                if first is not point:
                    same.append(f"{point.name} has the same recipe as {first.name}, and is left out")
        if messages:
            raise UserError(list(dict.fromkeys(messages)))
        return [*found.values()], same

    def _name(self, values: Values) -> str:
        """What differs, as the name of a folder: unique without regard to case, stable, and not too long."""
        full = ",".join(f"{key}={short_value(value)}" for key, value in zip(self.short, values, strict=True))
        name = full if len(full) <= LONGEST else _with_digest(full, values)
        if self.by_name.setdefault(name.casefold(), values) == values:
            return name
        name = _with_digest(full, values)
        self.by_name[name.casefold()] = values
        return name


def content(recipe: Recipe) -> str:
    """The resolved recipe without the names of its runs, by which equal ones are known."""
    return recipe.to_yaml().replace(recipe.name, "")


def short_keys(keys: Sequence[str]) -> list[str]:
    """The initials of each key's last part (`lr` of `training.learning_rate`), of more parts where two are the same."""
    forms = [
        *([_suffix(key, depth, _initials) for key in keys] for depth in (1, 2, 3)),
        *([_suffix(key, depth, str) for key in keys] for depth in (1, 2, 3)),
        [*keys],
    ]
    return next(form for form in forms if len({name.casefold() for name in form}) == len(keys) or form == [*keys])


def short_value(text: str) -> str:
    """A value in a file's name: numbers in their shortest form, of paths the last part, of lists the items."""
    value = parse_value(text)
    if isinstance(value, bool) or value is None:
        return str(value).lower() if value is not None else "null"
    if isinstance(value, int | float):
        short = f"{value:g}"
        return short if float(short) == value else repr(value)
    items = value if isinstance(value, list) else [value]
    if any(isinstance(item, dict | list) for item in items):
        return _digest([text])
    return "+".join(UNUSUAL.sub("-", Path(str(item)).name).strip("-") or _digest([str(item)]) for item in items)


def _initials(part: str) -> str:
    words = [word for word in part.split("_") if word]
    return "".join(word[0] for word in words) if len(words) > 1 else part


def _suffix(key: str, depth: int, shorten) -> str:
    return ".".join(shorten(part) for part in key.split(".")[-depth:])


def _with_digest(full: str, values: Values) -> str:
    return f"{full[: LONGEST - DIGEST - 1]}-{_digest(values)}"


def _digest(values: Iterable[str]) -> str:
    return hashlib.sha256("\n".join(values).encode()).hexdigest()[:DIGEST]
