"""Where a run's recipe most likely came from: the shipped one that its command named, or the one most like it."""

from collections.abc import Mapping
from contextlib import suppress
from functools import cache
from typing import Any, NamedTuple

import yaml

from olmoe_ft.recipe import UserError, load_recipe
from olmoe_ft.recipe.load import parse_override
from olmoe_ft.report.recipe_values import Values, differing, values_of
from olmoe_ft.report.run_files import RunFiles
from olmoe_ft.shipped import recipe_names, shipped_recipe

COMMAND = "train"
WITH_VALUE = ("--accept",)  # options of the command whose value is a word of its own


class Origin(NamedTuple):
    """A shipped recipe, and what a run's recipe has otherwise."""

    name: str
    named: bool
    """Whether the run's command named it."""
    differing: list[tuple[str, Any, Any]]
    """Dotted keys, each with the run's value and the shipped one; not the name of the run."""


def origin(run: RunFiles) -> Origin | None:
    """The shipped recipe that the newest recorded command named; else the one of the same stage with the fewest
    differences, where there is any."""
    words = _words(command_of(run))
    named = bool(words) and shipped_recipe(words[0]) is not None
    names = [name for name in recipe_names() if not named or shipped_recipe(name) == shipped_recipe(words[0])]
    own = values_of(run.recipe)
    found: list[tuple[bool, bool, Origin]] = []
    for name in names:
        for shipped in _stages(name):
            if shipped.stage == run.recipe.get("stage"):
                another, alone = shipped.run != run.name, ("/" in shipped.run) != ("/" in run.name)
                found.append((another, alone, Origin(name, named, differing(own, shipped.values))))
    if not found:
        return None
    # the stages of a pipeline that was named differ by their names; else names, and whether
    # they are of a pipeline's stages, decide between recipes that are alike
    return min(found, key=lambda one: (named and one[0], len(one[2].differing), one[:2]))[2]


def command_of(run: RunFiles) -> list[str]:
    """The words of the newest command that was recorded; empty of a run of an older version."""
    for launch in reversed(run.launches):
        words = launch.get("command")
        if isinstance(words, list) and words and all(isinstance(word, str) for word in words):
            return words
    return []


def overridden(run: RunFiles) -> list[str]:
    """The dotted keys that the command line set, of this stage: those of a pipeline's other stages are left out."""
    words, found = _words(command_of(run)), []
    for word in words[1:]:
        with suppress(UserError):  # no override, such as an option's value
            key, value = parse_override(word)
            if key.startswith("stages."):
                key = key.split(".", 2)[-1]
                if _at(run.recipe, key) != value:
                    continue
            found.append(key)
    return found


def _words(command: list[str]) -> list[str]:
    """The recipe and what follows it, without options."""
    ours = [place for place, word in enumerate(command) if word.rpartition("/")[2] in ("olmoe_ft", "olmoe-ft")]
    start = ours[-1] + 1 if ours else 0
    if COMMAND not in command[start:]:
        return []
    words = command[command.index(COMMAND, start) + 1 :]
    values = {place + 1 for place, word in enumerate(words) if word in WITH_VALUE}
    return [word for place, word in enumerate(words) if place not in values and not word.startswith("-")]


class _Shipped(NamedTuple):
    """One stage of a shipped recipe."""

    run: str
    """The name of its run directory."""
    stage: str
    values: Values


@cache
def _stages(name: str) -> list[_Shipped]:
    """All of a shipped recipe; none where it names a file that is not here."""
    try:
        recipes = load_recipe(name).runs
    except UserError:
        return []
    return [_Shipped(one.name, one.stage, values_of(yaml.safe_load(one.to_yaml()))) for one in recipes]


def _at(values: Any, key: str) -> Any:
    for part in key.split("."):
        if isinstance(values, list) and part.isdecimal() and int(part) < len(values):
            values = values[int(part)]
        else:
            values = values.get(part) if isinstance(values, Mapping) else None
    return values
