"""What differs between the recipes of several runs, and between what else they were trained with."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from typing import Any

from olmoe_ft.recipe.changes import FREE, STEPS
from olmoe_ft.report.comparison.compared import Compared
from olmoe_ft.report.files.data_report import mapping
from olmoe_ft.report.files.recipe_values import No, Values, of_trainer, shown_value, value_in, values_of
from olmoe_ft.report.page.blocks import Cell, Column, Table

WIDE = 6  # more runs than that are the rows of a table rather than its columns
NOT_SET = No.VALUE.value
FEW = 3  # differing keys that are named where there is one line for them


@dataclass(frozen=True)
class Differing:
    """A key, and its value in each run."""

    key: str
    cells: Sequence[Cell]


def recipe_differences(runs: Sequence[Compared]) -> list[Differing]:
    """The keys of the recipes, with dots, whose values are not the same in all runs; without the runs' names.

    What a run leaves out is its field's default. Keys that only say how a run is watched and saved come last.
    """
    recipes = [values_of(one.run.recipe) for one in runs]
    having = {key: recipe for recipe in reversed(recipes) for key in recipe}  # the first recipe that has it
    keys = sorted(dict.fromkeys(key for recipe in recipes for key in recipe), key=_changes_no_step)
    values = {
        key: [_value(key, one, recipe, having[key]) for one, recipe in zip(runs, recipes, strict=True)] for key in keys
    }
    found = [
        Differing(key, [_cell(value, key in recipe) for value, recipe in zip(values[key], recipes, strict=True)])
        for key in keys
        if not _all_the_same(values[key])
    ]
    stages = [str(one.run.recipe.get("stage", NOT_SET)) for one in runs]
    return found if _all_the_same(stages) else [Differing("stage", list(map(Cell, stages))), *found]


def _value(key: str, one: Compared, own: Values, having: Values) -> Any:
    """A run's value; of what its trainer has and the recipe leaves out the default of the run's own stage."""
    if key in own or not key.startswith("training."):
        return value_in(key, own, having)
    default = of_trainer(str(one.run.recipe.get("stage")), key.removeprefix("training."))
    return No.VALUE if default is No.FIELD else default


def _cell(value: Any, given: bool) -> Cell:
    return Cell(shown_value(value), "" if given or isinstance(value, No) else "the default")


def other_differences(runs: Sequence[Compared]) -> list[Differing]:
    """Rows, start, versions, devices: what is not in a recipe and is not the same in all runs.

    What an older run has not recorded is "not known", which is no difference by itself.
    """
    records = [_recorded(one) for one in runs]
    found = []
    for key in dict.fromkeys(key for record in records for key in record):
        values = [record.get(key) for record in records]
        if not _all_the_same([value for value in values if value is not None]):
            found.append(Differing(key, [Cell("not known" if value is None else str(value)) for value in values]))
    return found


def in_one_line(differing: Sequence[Differing], number: int) -> str:
    """The values of one run by short names: `learning_rate=1e-05, r=8`."""
    if not differing:
        return "the same recipe"
    names = _short_names([one.key for one in differing])
    texts = [one.cells[number].text for one in differing]
    values = [f"{name}={text}" for name, text in zip(names, texts, strict=True) if text not in (NOT_SET, "null")]
    if not values:
        return f"{names[0]}={texts[0]}"
    more = f" and {len(values) - FEW} more" if len(values) > FEW else ""
    return ", ".join(values[:FEW]) + more


def keys_by_run(title: str, differing: Sequence[Differing], runs: Sequence[Compared], note: str = "") -> Table:
    """A table of keys and runs; the runs are its columns where they are few."""
    return by_run(title, "key", [(one.key, one.cells) for one in differing], runs, note)


def by_run(
    title: str, name: str, rows: Sequence[tuple[str, Sequence[Cell]]], runs: Sequence[Compared], note: str = ""
) -> Table:
    """A table of what `rows` name and of runs.

    Args:
        name: what the rows are: keys, tasks.
        rows: each with a cell for each run.
    """
    labels = [one.label for one in runs]
    if len(runs) <= WIDE:
        columns = [Column(name), *(Column(label, number=_numbers(rows, at)) for at, label in enumerate(labels))]
        return Table(title, columns, [[key, *cells] for key, cells in rows], note)
    columns = [Column("run"), *(Column(key, number=_all_numbers(cells)) for key, cells in rows)]
    return Table(title, columns, [[label, *(cells[at] for _, cells in rows)] for at, label in enumerate(labels)], note)


def _numbers(rows: Sequence[tuple[str, Sequence[Cell]]], at: int) -> bool:
    return _all_numbers([cells[at] for _, cells in rows])


def _all_numbers(cells: Sequence[Cell]) -> bool:
    return all(re.fullmatch(r"[-+]?[\d,.]+(e[-+]?\d+)?%?|", cell.text) for cell in cells)


def _changes_no_step(key: str) -> bool:
    return key not in STEPS and any(fnmatch(key, pattern) for pattern in FREE)


def _all_the_same(values: Sequence[Any]) -> bool:
    return all(value == values[0] for value in values)


def _recorded(one: Compared) -> dict[str, Any]:
    launch, summary = one.run.launch, one.run.summary or {}
    data, machine = mapping(launch.get("data")), mapping(launch.get("machine"))
    sources, devices = data.get("sources"), machine.get("devices")
    found = {
        "training rows": data.get("rows"),
        "fingerprint of the rows": _digest(data.get("fingerprint")),
        **{
            f"fingerprint of {source.get('path')}": _digest(source.get("fingerprint"))
            for source in (sources if isinstance(sources, list) else [])
            if isinstance(source, Mapping)
        },
        "fingerprint of the start": _digest(summary.get("started_from")),
        "git revision": _revision(launch.get("git_revision")),
        "Python": launch.get("python"),
        **mapping(launch.get("libraries")),
        "processes": launch.get("processes"),
        "device": launch.get("device"),
        "devices": ", ".join(map(str, devices)) if isinstance(devices, list) else None,
        "processor": machine.get("cpu"),
        "engine": launch.get("engine"),
        **{f"precision of {name}": value for name, value in mapping(launch.get("precision")).items()},
    }
    return {name: value for name, value in found.items() if value not in (None, "")}


def _digest(value: Any) -> str | None:
    return str(value)[:12] if value is not None else None


def _revision(value: Any) -> str | None:
    """The first digits of a commit, and whether files differed from it."""
    return None if value is None else str(value)[:12] + ("-dirty" if str(value).endswith("-dirty") else "")


def _short_names(keys: Sequence[str]) -> list[str]:
    """The last parts of each key that no other key ends with; of a list's items with their place in it."""

    def tails(key: str) -> list[str]:
        parts = key.split(".")
        first = next((at - 1 for at, part in enumerate(parts) if part.isdigit()), len(parts) - 1)
        return [".".join(parts[start:]) for start in range(first, -1, -1)]

    counts = Counter(tail for key in keys for tail in tails(key))
    return [next((tail for tail in tails(key) if counts[tail] == 1), key) for key in keys]
