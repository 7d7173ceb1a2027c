"""Find the files that a recipe names.

A name is looked for beside the file that names it, then in the working folder, then among the files that come with the
package. A value from the command line belongs to no file. A name that is found nowhere is kept as it is: it may be a
name on the Hub, or a run that does not exist yet.
"""

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from olmoe_ft.recipe.document import Document
from olmoe_ft.shipped import CHECKOUT, FILES, found, is_shipped_name

# Keys whose values name a file or folder to read; * is an item of a list.
PATHS = (
    "model.path",
    "model.config",
    "model.tokenizer",
    "data.train.*.path",
    "data.eval.*.path",
    "data.answers.path",
    "data.decontaminate_against.*",
    "data.decontaminate_against.*.path",
)
TASKS = "evaluation.tasks.*"
FILES_OF_TASKS = (".yaml", ".yml", ".jsonl", ".json", ".csv", ".parquet", ".gz")

# What was looked for beside the recipe that was loaded last, and was not there. The messages about files that cannot
MISSED: dict[str, list[str]] = {}


def with_found_paths(document: Document) -> dict[str, Any]:
    """The values of a recipe, with every path changed so that it can be opened from the working folder.

    The runs of a pipeline's own stages are always below the working folder.
    """
    pipeline, slash, _ = str(document.values.get("name")).partition("/")

    def look_up(key: str, name: str) -> str:
        if not name or (slash and name.startswith(f"runs/{pipeline}/")):
            return name
        return _look_up(name, document.place(key).file)

    return with_paths(document.values, look_up)


def with_paths(values: Mapping[str, Any], change: Callable[[str, str], str]) -> dict[str, Any]:
    """The values of a recipe with its paths changed.

    Args:
        change: gets the dotted key and the path, returns the new path.
    """
    changed: Any = dict(values)
    for pattern in PATHS:
        changed = _with_path(changed, pattern.split("."), (), change)
    return _with_path(changed, TASKS.split("."), (), lambda key, text: _with_task_files(text, key, change))


def _with_task_files(text: str, key: str, change: Callable[[str, str], str]) -> str:
    """A task by name, a task file or a file of rows, each with `=FILE` behind it or not."""
    name, equals, file = text.partition("=")
    name = change(key, name) if name.endswith(FILES_OF_TASKS) else name
    return name + equals + (change(key, file) if file else "")


def sought(name: str) -> str:
    """The places where a missing file was looked for, for a message."""
    places = [f"{file} (beside the recipe)" for file in MISSED.get(name, [])]
    places.append(str(Path.cwd() / name) if not os.path.isabs(name) else name)
    if is_shipped_name(name):
        places.append("the files that come with olmoe_ft")
    return "looked for " + ", ".join(places[:-1]) + (" and " if places[1:] else "") + places[-1]


def _look_up(name: str, file: str) -> str:
    folder = os.path.abspath(os.path.dirname(file))
    installed = not CHECKOUT and f"{folder}/".startswith(f"{FILES}/")  # users keep no files inside an installed package
    if file and not installed and folder != os.getcwd() and not os.path.isabs(name):
        beside = os.path.normpath(os.path.join(folder, name))
        below = not os.path.relpath(beside).startswith("..")
        beside = (
            os.path.relpath(beside) if below else beside
        )  # the same path, whichever way the recipe's path was typed
        if os.path.exists(beside):
            return beside
        if beside not in MISSED.setdefault(name, []):
            MISSED[name].append(beside)
    return found(name)


def _with_path(value: Any, pattern: list[str], key: tuple[str, ...], change: Callable[[str, str], str]) -> Any:
    if not pattern:
        return change(".".join(key), value) if isinstance(value, str) else value
    first, rest = pattern[0], pattern[1:]
    if first == "*" and isinstance(value, list | tuple):
        return [_with_path(item, rest, (*key, str(index)), change) for index, item in enumerate(value)]
    if isinstance(value, Mapping) and first in value:
        return {**value, first: _with_path(value[first], rest, (*key, first), change)}
    return value
