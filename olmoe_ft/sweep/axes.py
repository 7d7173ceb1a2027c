"""What is varied: `key=v1,v2`, `key=lo..hi:log:5`. Values are texts, as they are given to `olmoe-ft train`."""

import math
import random
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product

from olmoe_ft.recipe.errors import UserError, gathered
from olmoe_ft.recipe.load import parse_override

NUMBER = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"
BEGINS_AS_RANGE = re.compile(rf"{NUMBER}\.\.")
RANGE = re.compile(rf"(?P<low>{NUMBER})\.\.(?P<high>{NUMBER})(?::(?P<scale>[a-z]+))?(?::(?P<count>\d+))?")
SCALES = ("log", "linear")
ALLOWED = "allowed: LOW..HIGH, with `:log` or `:linear` behind it, and the number of values, such as 1e-6..1e-4:log:5"
PAIRS = {"[": "]", "{": "}"}
DIGITS = 4  # of a value between the ends of a range
ATTEMPTS = 100  # at each point that random search shall find

Values = tuple[str, ...]  # one of each axis


@dataclass(frozen=True)
class Choices:
    """A key and the values that it takes."""

    key: str
    values: Values

    def draw(self, chance: random.Random) -> str:
        return chance.choice(self.values)

    @property
    def ends(self) -> Values:
        """The values that a plan looks at, where not all points are known before."""
        return self.values


@dataclass(frozen=True)
class Range:
    """A key that takes any value between two ends: of a search, which needs no count."""

    key: str
    low: str
    high: str
    log: bool

    @property
    def whole(self) -> bool:
        """Whether its values are whole numbers, as both ends are."""
        return all(re.fullmatch(r"[-+]?\d+", end) for end in (self.low, self.high))

    def at(self, share: float) -> str:
        """The value at a share of the way between the ends, of their logarithms on a logarithmic scale."""
        if share in (0.0, 1.0):
            return self.high if share else self.low
        low, high = float(self.low), float(self.high)
        value = low * (high / low) ** share if self.log else low + (high - low) * share
        return self.text(value)

    def text(self, value: float) -> str:
        return str(round(value)) if self.whole else f"{value:.{DIGITS}g}"

    def draw(self, chance: random.Random) -> str:
        return self.at(chance.random())

    @property
    def ends(self) -> Values:
        return self.low, self.high


Axis = Choices | Range


@dataclass(frozen=True)
class Space:
    """All that a command has set: the axes, and the values that all points share."""

    axes: tuple[Axis, ...]
    fixed: tuple[str, ...]
    """As overrides: `key=value`."""

    def grid(self) -> Iterator[Values]:
        """Every combination, the last axis fastest."""
        return product(*(axis.ends for axis in self.axes))


def parse_space(settings: Sequence[str], search: bool) -> Space:
    """Read what the command line sets.

    Args:
        settings: `key=v1,v2`, `key=lo..hi:log:5`, or `key=value`, which is for all points.
        search: whether a range may leave out its count, and be any value between its ends.
    Raises:
        UserError: with everything that is wrong; or nothing is varied.
    """
    messages: list[str] = []
    axes: list[Axis] = []
    fixed: dict[str, str] = {}
    for setting in settings:
        with gathered(messages):
            axis = _axis(setting, search)
            if isinstance(axis, Choices) and len(axis.values) == 1:
                fixed[axis.key] = axis.values[0]  # the last one counts, as in `olmoe-ft train`
            else:
                axes.append(axis)
    keys = [*(axis.key for axis in axes), *fixed]
    messages += [f"{key}: found twice; give all its values at once: {key}=v1,v2" for key in _repeated(keys)]
    if not messages and not axes:
        messages.append(
            "sweep: found no key with several values; give one, such as training.learning_rate=1e-5,2e-5 or "
            "training.learning_rate=1e-6..1e-4:log:5"
        )
    if messages:
        raise UserError(messages)
    return Space(tuple(axes), tuple(f"{key}={value}" for key, value in fixed.items()))


def some_of_grid(space: Space, count: int | None, seed: int) -> list[Values]:
    """The grid, or so many random points of it, in its order. A larger count has those of a smaller one, too."""
    points = list(space.grid())
    if count is None or count >= len(points):
        return points
    order = list(range(len(points)))
    random.Random(seed).shuffle(order)
    return [points[index] for index in sorted(order[:count])]


def drawn(space: Space, count: int, seed: int) -> list[Values]:
    """So many points of a random search, all different; fewer where there are no more."""
    chance = random.Random(seed)
    found: dict[Values, None] = {}
    for _ in range(ATTEMPTS * count):
        found[tuple(axis.draw(chance) for axis in space.axes)] = None
        if len(found) == count:
            break
    return list(found)


def _axis(setting: str, search: bool) -> Axis:
    key, equals, text = setting.partition("=")
    if key == "name":
        raise UserError("name: the names of the runs are made of the values that differ; name the sweep with --name")
    if equals and BEGINS_AS_RANGE.match(text):
        return _range(key, text, search)
    values = _split(key, text) if equals else (text,)
    for value in values:
        parse_override(f"{key}{equals}{value}")
    return Choices(key, tuple(dict.fromkeys(values)))


def _range(key: str, text: str, search: bool) -> Axis:
    parse_override(f"{key}=0")  # the key
    found = RANGE.fullmatch(text)
    if found is None or found["scale"] not in (None, *SCALES):
        raise UserError(f'{key}: found "{text}"; {ALLOWED}')
    one = Range(key, found["low"], found["high"], found["scale"] == "log")
    if not float(one.low) < float(one.high):
        raise UserError(f'{key}: found "{text}", whose first end is not below its second; {ALLOWED}')
    if one.log and float(one.low) <= 0:
        raise UserError(f'{key}: found "{text}"; a logarithmic range has ends above 0; choose linear, or another end')
    if found["count"] is None:
        if search:
            return one
        raise UserError(
            f'{key}: found "{text}" without the number of values; write {text}:5, or let --search random or tpe '
            "choose values between the ends"
        )
    count = int(found["count"])
    if count < 2:
        raise UserError(f'{key}: found "{text}" with {count} value(s); allowed: at least 2')
    return Choices(key, tuple(dict.fromkeys(one.at(index / (count - 1)) for index in range(count))))


def _split(key: str, text: str) -> Values:
    """The parts between commas that are in no brackets and no quotes."""
    parts, closing, quote = [""], "", ""
    for character in text:
        if quote:
            quote = "" if character == quote else quote
        elif character in "'\"" and parts[-1].rstrip()[-1:] in ("", *"[{,:"):  # where a text begins: not in `don't`
            quote = character
        elif character in PAIRS:
            closing += PAIRS[character]
        elif closing.endswith(character):
            closing = closing[: -len(character)]
        elif character == "," and not closing:
            parts.append("")
            continue
        parts[-1] += character
    if closing or quote:
        raise UserError(f'{key}: found "{text}", in which {(quote or closing[-1])!r} is missing')
    if not all(part.strip() for part in parts):
        raise UserError(f'{key}: found "{text}" with an empty value; remove a comma, or write null')
    return tuple(part.strip() for part in parts)


def _repeated(keys: Sequence[str]) -> list[str]:
    return [key for key in dict.fromkeys(keys) if keys.count(key) > 1]


def grid_size(space: Space) -> int:
    """How many points the grid has."""
    return math.prod(len(axis.ends) for axis in space.axes)
