"""Find, check and load the tasks of an evaluation.

A task is named in one of three ways, each with a file of rows of the user's own behind it or not (`NAME=FILE`):
a task that ships with this package, the path of a task file, or a task of lm-eval's registry. lm-eval is optional, so
it is imported where it is needed.
"""

import os
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from olmoe_ft.data.files import is_readable, kind_of
from olmoe_ft.evaluation.suite import TASKS
from olmoe_ft.evaluation.task_data import FILES, data_problems, has_own_rows
from olmoe_ft.evaluation.task_keys import Problem, key_problems, with_functions
from olmoe_ft.evaluation.task_rows import dataset
from olmoe_ft.evaluation.task_yaml import read_task
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
        return manager.load([one.name if one.values is None else one.values for one in asked])
    except ValueError as error:
        if "Duplicate task" in str(error):
            raise UserError(f"--tasks: {error}; leave one of them out") from None
        raise


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
        values = _with_rows(values, file) if file else values
        wrong += key_problems(values)
        if isinstance(values.get("task"), str):
            asked.name = values["task"]
            wrong += _taken(asked.name, path) if path == own else ()
        asked.values = _checked_rows(values, wrong, path.parent)
        asked.problems += [_message(task, path, spec if file else "", *problem) for problem in wrong]
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

    values, wrong = _with_rows(load_yaml(path), file), list[Problem]()
    values = _checked_rows(values, wrong, path.parent)
    asked = _Asked(name, values)
    asked.problems += [_message(Document({}, {}), path, f"{name}={file}", *problem) for problem in wrong]
    return asked


def _with_rows(values: dict[str, Any], file: str) -> dict[str, Any]:
    """A task with the rows of a file in the place of its questions; its other splits are gone."""
    asked = "validation_split" if values.get("test_split") is None and values.get("validation_split") else "test_split"
    split = values.get(asked) or "test"
    gone = {"dataset_name", "training_split", "validation_split", "test_split"}
    if not values.get("num_fewshot"):
        gone.add("fewshot_split")
    kind = kind_of(file)
    return {
        **{key: value for key, value in values.items() if key not in gone},
        "dataset_path": "json" if kind == "jsonl" else kind,
        "dataset_kwargs": {"data_files": {split: file}},
        "custom_dataset": dataset,
        asked: split,
    }


def _checked_rows(values: dict[str, Any], wrong: list[Problem], folder: Path) -> dict[str, Any]:
    """Add what is wrong with a task's own rows; returns the task with the reader of such rows.

    Args:
        folder: of the task file, where a file of rows may be that is not in the working folder.
    """
    if not has_own_rows(values):
        wrong += data_problems(values)
        return values

    def placed(files: Any) -> Any:
        if isinstance(files, dict):
            return {split: placed(names) for split, names in files.items()}
        if isinstance(files, list):
            return [placed(name) for name in files]
        beside = os.path.join(folder, str(files))
        return beside if not os.path.exists(str(files)) and os.path.isfile(beside) else files

    options = values.get("dataset_kwargs") or {}
    options = {**options, **({"data_files": placed(options["data_files"])} if "data_files" in options else {})}
    values = {**values, "dataset_kwargs": options, "custom_dataset": dataset}
    wrong += data_problems(values)
    return values


def _taken(name: str, own: Path) -> Iterator[Problem]:
    """A task of the user's must not look like a published one in the results."""
    if name in shipped_tasks():
        yield "task", f"`{name}` is a task of olmoe_ft; give yours another name"
    elif (published := _published().get(name)) is not None and not published.samefile(own):
        yield "task", f"`{name}` is a task of lm-eval; give yours another name"


@cache
def _published() -> dict[str, Path]:
    """The files of lm-eval's tasks and groups by name, as their lines say: fifteen times as fast as its index."""
    import lm_eval

    line = re.compile(rb"^[\"']?(?:task|group)[\"']?[ ]*:[ ]*[\"']?([\w.-]+)", re.MULTILINE)
    files = (Path(lm_eval.__file__).parent / "tasks").rglob("*.yaml")
    return {name.decode(): file for file in files for name in line.findall(file.read_bytes())}


def _message(task: Document, path: Path, spec: str, key: str, problem: str) -> str:
    """A problem with its place: the line of the task file, or what was asked for where that names the rows."""
    if spec and key == FILES:
        return f"{spec}: {problem}"
    place = task.place(key) if task.places else path
    return f"{place}: {f'{key}: ' if key else ''}{problem}"
