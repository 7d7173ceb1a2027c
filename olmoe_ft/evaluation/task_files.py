"""Find, check and load the tasks of an evaluation.

A task is named in one of three ways, each with a file of rows of the user's own behind it or not (`NAME=FILE`):
a task that ships with this package, the path of a task file, or a task of lm-eval's registry. lm-eval is optional, so
it is imported where it is needed.
"""

import os
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from olmoe_ft.data.files import is_readable
from olmoe_ft.evaluation.suite import SUITE, TASKS
from olmoe_ft.evaluation.task_data import FILES, data_problems
from olmoe_ft.evaluation.task_keys import key_problems
from olmoe_ft.evaluation.task_own_rows import has_own_rows, split_problems, with_reader, with_rows
from olmoe_ft.evaluation.task_trial import refuse_failing
from olmoe_ft.evaluation.task_yaml import Problem, read_task, with_functions
from olmoe_ft.recipe import UserError
from olmoe_ft.recipe.document import Document
from olmoe_ft.recipe.errors import gathered
from olmoe_ft.recipe.wording import nearest

if TYPE_CHECKING:
    from lm_eval.tasks.manager import TaskDict, TaskManager

FOLDER = Path(__file__).parent / "tasks"
NEEDS = "evaluation with tasks needs lm-eval, which is not installed; install it: pip install 'olmoe_ft[evaluation]'"


@dataclass
class _Asked:
    """A task that was asked for."""

    name: str
    """Of the task or, in the registry, of a group or tag."""
    values: dict[str, Any] | None = None
    """The keys of the task; None where lm-eval loads it by its name."""
    problems: list[str] = field(default_factory=list)


def check_tasks(names: Sequence[str]) -> None:
    """Check tasks before anything large is loaded, down to every row of the user's files.

    Raises:
        UserError: all that is wrong with them.
    """
    _checked(names)


def load_tasks(names: Sequence[str]) -> "TaskDict":
    """The tasks, checked and loaded with their rows, and the groups that have them.

    Args:
        names: each the name of a shipped task, the path of a task file, or a task, group or tag of lm-eval; with
            `=FILE`, the rows of that file are in the place of the task's own.
    Raises:
        UserError: all that is wrong with them.
        Exception: what `datasets` raises where a dataset of the Hub cannot be loaded.
    """
    asked = _checked(names)
    if all(one.values is not None for one in asked):
        from lm_eval.tasks import TaskManager

        manager = TaskManager(include_defaults=False)
    else:
        manager = _registry()
    try:
        loaded = manager.load([one.name if one.values is None else one.values for one in asked])
    except ValueError as error:
        if "Duplicate task" in str(error):
            raise UserError(f"--tasks: {error}; leave one of them out") from None
        raise
    for one in asked:
        if one.values is not None:
            refuse_failing(one.name, loaded["tasks"][one.name])
    return loaded


@cache
def shipped_tasks() -> dict[str, Path]:
    """The files of the tasks that ship with this package, by name."""
    return {file.stem: file for file in sorted(FOLDER.glob("*.yaml"))}


@cache
def _registry() -> "TaskManager":
    """Every task of lm-eval, and the groups of the suite. Building this index reads some 14,000 files: five seconds of
    a CPU core."""
    from lm_eval.tasks import TaskManager

    return TaskManager(include_path=str(TASKS))


def _checked(names: Sequence[str]) -> list[_Asked]:
    try:
        import lm_eval  # noqa: F401
    except ImportError:
        raise UserError(NEEDS) from None
    if not names:
        raise UserError(f"found no task; allowed: {', '.join(shipped_tasks())}, a task file, a task of lm-eval")
    asked = [_asked(name) for name in names]
    problems = [problem for one in asked for problem in one.problems]
    for name, times in Counter(one.name for one in asked if one.name).items():
        if times > 1:
            problems.append(f"{name}: found {times} tasks of this name; leave out or rename all but one")
    if problems:
        raise UserError(problems)
    return asked


def _asked(spec: str) -> _Asked:
    """The task that a name of the command line or the recipe means."""
    name, sign, file = (spec, "", "") if os.path.exists(spec) else spec.partition("=")
    if sign and not file:
        return _Asked(name, problems=[f"{spec}: found no file behind the task; write `{name}=FILE`, or `{name}` alone"])
    own = Path(name) if name.endswith((".yaml", ".yml")) else None
    if (path := shipped_tasks().get(name) or own) is None:
        return _of_registry(name, file)
    asked = _Asked("")
    with gathered(asked.problems):
        task = read_task(path)
        wrong: list[Problem] = []
        values = with_functions(task.values, wrong)
        values = with_rows(values, file) if file else values
        wrong += key_problems(values)
        if isinstance(values.get("task"), str):
            asked.name = values["task"]
            if path == own and (taken := _taken(asked.name, path)):
                wrong.append(("task", taken))
        asked.values = with_reader(values, path.parent) if has_own_rows(values) else values
        wrong += data_problems(asked.values, name)
        asked.problems += [
            _message(spec, *problem) if path != own or (file and problem[0] == FILES) else _placed(task, *problem)
            for problem in wrong
        ]
    return asked


def _of_registry(name: str, file: str) -> _Asked:
    """A task, group or tag of lm-eval."""
    known = _registry().task_index
    if name not in known:
        hint = nearest(name, [*shipped_tasks(), *known])
        if is_readable(name) and os.path.isfile(name):
            hint = f"; for questions in a file name a task with it, such as `exact_rows={name}`"
        shipped = ", ".join(shipped_tasks())
        message = (
            f"{name}: there is no such task{hint}; allowed: {shipped}; the path of a task file (.yaml); a task of "
            "lm-eval (`lm-eval ls tasks` lists them)"
        )
        return _Asked(name, problems=[message])
    if not file:
        return _Asked(name)
    path = known[name].yaml_path
    if path is None or known[name].kind.name != "TASK":
        return _Asked(
            name, problems=[f"{name}={file}: only a single task can have a file of rows; name one of its tasks"]
        )
    from lm_eval.tasks._yaml_loader import load_yaml

    values = with_reader(with_rows(load_yaml(path), file), path.parent)
    spec = f"{name}={file}"
    return _Asked(name, values, [_message(spec, *problem) for problem in data_problems(values, name)])


def takes_rows(name: str) -> bool:
    """Whether `NAME=FILE` can be written: of a single task whose worked examples are not from another split of it."""
    if name in shipped_tasks():
        return True
    if name.endswith((".yaml", ".yml")):
        try:
            values = read_task(Path(name)).values
        except UserError:
            return False
    else:
        entry = _registry().task_index.get(name)
        if entry is None or entry.yaml_path is None or entry.kind.name != "TASK":
            return False
        from lm_eval.tasks._yaml_loader import load_yaml

        values = load_yaml(entry.yaml_path, resolve_func=False)
    values = with_rows(values, "rows.jsonl")
    return not any(split_problems(values, values["dataset_kwargs"]["data_files"]))


def check_name(name: str, place: str) -> str | None:
    """A problem if the rows of a user's file would look like another task in the results.

    Args:
        name: of the task, as the stem of its file.
        place: how the message begins, such as the path of the file.
    """
    return f"{place}: {taken}" if (taken := _taken(name)) else None


def _taken(name: str, own: Path | None = None) -> str:
    """A message if a name is of another task than the one in the file `own`."""
    from olmoe_ft.evaluation.wanted import ANSWERS

    if name == ANSWERS:
        whose = "the held-out prompts of a recipe"
    elif name in [column.task for column in SUITE if column.judged]:
        whose = "a set of prompts for a judge"
    elif name in shipped_tasks() or name in [column.group for column in SUITE if not column.judged]:
        whose = "a task of olmoe_ft"
    elif (published := _published().get(name)) and not (own and published.samefile(own)):
        whose = "a task of lm-eval"
    else:
        return ""
    return f"`{name}` is {whose}; give yours another name"


@cache
def _published() -> dict[str, Path]:
    """The files of lm-eval's tasks and groups by name, as their lines say: fifteen times as fast as its index.

    Held-out prompts need no lm-eval, but their names are checked; without it there are no tasks to mistake them for.
    """
    try:
        import lm_eval
    except ImportError:
        return {}
    line = re.compile(rb"^[\"']?(?:task|group)[\"']?[ ]*:[ ]*[\"']?([\w.-]+)", re.MULTILINE)
    files = (Path(lm_eval.__file__).parent / "tasks").rglob("*.yaml")
    return {name.decode(): file for file in files for name in line.findall(file.read_bytes())}


def _message(place: object, key: str, problem: str) -> str:
    """A problem with its place; a file of rows is named in the problem itself."""
    return f"{place}: {f'{key}: ' if key and key != FILES else ''}{problem}"


def _placed(task: Document, key: str, problem: str) -> str:
    """A problem with its line of the task file."""
    return f"{task.place(key)}: {f'{key}: ' if key else ''}{problem}"
