"""What is to be evaluated: which tasks, how many questions. Checked and read before a weight is."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, get_args

from olmoe_ft.evaluation.answers import AnswersTask
from olmoe_ft.evaluation.questions import load_questions
from olmoe_ft.evaluation.suite import SUITE, Column
from olmoe_ft.recipe import Recipe, UserError
from olmoe_ft.recipe.data_section import Answers
from olmoe_ft.recipe.errors import gathered
from olmoe_ft.shipped import found

JudgedName = Literal["alpaca_eval", "xstest"]
EngineName = Literal["olmoe_ft", "vllm"]
ANSWERS = "answers"  # the task of a recipe's `data.answers`
WORKED = re.compile(r"\n#### -?[$\d]")
ROWS = (".jsonl", ".json", ".csv", ".parquet", ".gz")


@dataclass(frozen=True)
class Wanted:
    """The tasks of one evaluation.

    Attributes:
        answers: files of held-out prompts; they need no harness.
        tasks: lm-eval's names, shipped ones, task files; each may have `=FILE` behind it, whose rows it then reads.
        columns: those of the paper's table that lm-eval measures, as in the paper.
        judged: sets whose outputs another model has to judge, each with a file of its prompts or None.
        batch_size: requests that each process answers at once.
        chat: whether questions are put through the chat template; None: where the model brings one.
    """

    answers: tuple[AnswersTask, ...] = ()
    tasks: tuple[str, ...] = ()
    columns: tuple[Column, ...] = ()
    judged: tuple[tuple[JudgedName, str | None], ...] = ()
    limit: int | None = None
    batch_size: int = 64
    allow_code: bool = False
    chat: bool | None = None

    def __bool__(self) -> bool:
        return bool(self.answers or self.tasks or self.columns or self.judged)

    def asked(self) -> list[str]:
        """All tasks, as they were written."""
        return [
            *(task.name for task in self.answers),
            *self.tasks,
            *(column.group for column in self.columns),
            *(name if file is None else f"{name}={file}" for name, file in self.judged),
        ]


def of_recipe(recipe: Recipe, **how: Any) -> Wanted:
    """What a recipe asks for: its `evaluation` section, and `data.answers`.

    Args:
        **how: attributes of `Wanted` to take in the place of the recipe's; None is the recipe's.
    Raises:
        UserError: a task or a file is wrong; it says all that is.
    """
    section = recipe.evaluation
    of_section = {"limit": section.limit, "batch_size": section.batch_size, "allow_code": section.allow_code}
    given = {name: value for name, value in how.items() if value is not None}
    answers = answers_of(recipe)
    if "batch_size" in given:
        answers = tuple(replace(task, batch_size=None) for task in answers)
    return wanted(section.tasks, section.suite, answers, recipe=True, **(of_section | given))


def answers_of(recipe: Recipe) -> tuple[AnswersTask, ...]:
    """The held-out prompts of a recipe; none where it has none.

    Raises:
        UserError: the file is missing, empty or malformed.
    """
    return (_answers_task(ANSWERS, recipe.data.answers),) if recipe.data.answers else ()


def wanted(
    tasks: Sequence[str] = (),
    suite: str | None = None,
    answers: Sequence[AnswersTask] = (),
    max_new_tokens: int = 64,
    recipe: bool = False,
    **how: Any,
) -> Wanted:
    """Sort task names into those of held-out prompts and those of the harness, and check them all.

    Args:
        tasks: a file of rows with a prompt and an `answer`, or a name of `Wanted.tasks`.
        answers: more tasks, already read.
        max_new_tokens: the longest answer to rows of a file.
        recipe: whether a training asks, in which nothing is judged.
        **how: the other attributes of `Wanted`.
    Raises:
        UserError: a task or a file is wrong; it says all that is.
    """
    from olmoe_ft.evaluation.task_files import check_name

    messages: list[str] = []
    of_rows = [name for name in tasks if name.endswith(ROWS) and "=" not in name]
    read: list[AnswersTask] = []
    for name in of_rows:
        with gathered(messages):
            read.append(_task_of_rows(name, max_new_tokens))
            if (problem := check_name(read[-1].name, name)) is not None:
                messages.append(problem)
    if suite not in (None, "olmoe"):
        messages.append(f"evaluation: found the suite {suite}; allowed: olmoe; choose it, or name tasks")
    names = [name for name in tasks if name not in of_rows]
    behind = {name: file for name, _, file in map(_parts, names)}
    sets: tuple[JudgedName, ...] = get_args(JudgedName)
    judged = {name: behind.get(name) or None for name in sets if name in behind or (suite and not recipe)}
    if recipe and judged:
        messages.append(
            f"evaluation.tasks: found {', '.join(judged)}, whose outputs another model has to judge; remove it, "
            "and ask for it after training: olmoe-ft evaluate RUN --tasks xstest"
        )
    columns: tuple[Column, ...] = ()
    with gathered(messages):
        columns = _columns(names, suite is not None, bool(how.get("allow_code")))
    names = [
        name for name in names if _parts(name)[0] not in (*judged, *(one.group for one in SUITE if not one.judged))
    ]
    if names or columns:
        with gathered(messages):
            _check_harness_tasks(names)
    if messages:
        raise UserError(messages)
    return Wanted((*answers, *read), tuple(names), columns, tuple(judged.items()), **how)


def _parts(spec: str) -> tuple[str, str, str]:
    """The name of a task, `=`, and the file whose rows it is to read."""
    return spec.partition("=")


def _columns(names: Sequence[str], suite: bool, allow_code: bool) -> tuple[Column, ...]:
    """The columns of the suite that are wanted, by the suite's name or their own."""
    named = dict.fromkeys(_parts(name)[0] for name in names)
    for column in SUITE:
        if not column.judged and column.group in named:
            if column.group not in names:
                raise UserError(f"{column.group}: found a file behind it; a column of the suite has its own questions")
            if column.runs_code and not allow_code:
                raise UserError(
                    f"{column.group}: runs programs that the model has written; allow it with --allow-code "
                    "(`evaluation.allow_code: true` in a recipe), in a container, or leave it out"
                )
    return tuple(
        column
        for column in SUITE
        if not column.judged and (column.group in named or (suite and (allow_code or not column.runs_code)))
    )


def _check_harness_tasks(names: Sequence[str]) -> None:
    """Raises:
    UserError: lm-eval is not installed, or what is wrong with the tasks.
    """
    if find_spec("lm_eval") is None:
        raise UserError(
            "evaluation: tasks of lm-eval need the package lm_eval, which is not installed; "
            "`pip install 'olmoe_ft[evaluation]'`, or name a file of held-out prompts, which needs no harness"
        )
    if names:
        from olmoe_ft.evaluation.task_files import check_tasks

        check_tasks(names)


def _task_of_rows(name: str, max_new_tokens: int) -> AnswersTask:
    answers = Answers.model_validate({"path": found(name), "max_new_tokens": max_new_tokens})
    return replace(_answers_task(Path(name).name.partition(".")[0], answers), batch_size=None)


def _answers_task(name: str, answers: Answers) -> AnswersTask:
    questions = load_questions(answers)
    if any(WORKED.search(question.answer) for question in questions):
        raise UserError(
            f"{answers.path}: found answers that are worked out, as GSM8K has them (`#### 18` at the end); exact match "
            f"would call every other text wrong; name the task that compares the number: gsm8k_rows={answers.path}"
        )
    return AnswersTask(name, questions, answers.max_new_tokens, answers.batch_size)
