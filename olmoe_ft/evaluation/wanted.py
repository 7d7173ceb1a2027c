"""What is to be evaluated: which tasks, how many questions. Checked and read before a weight is."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from olmoe_ft.evaluation.answers import AnswersTask
from olmoe_ft.evaluation.questions import load_questions
from olmoe_ft.evaluation.suite import SUITE, Column
from olmoe_ft.recipe import Recipe, UserError
from olmoe_ft.recipe.data_section import Answers
from olmoe_ft.shipped import found

JudgedName = Literal["alpaca_eval", "xstest"]
EngineName = Literal["olmoe_ft", "vllm"]
ANSWERS = "answers"  # the task of a recipe's `data.answers`
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

    def settings(self) -> dict[str, Any]:
        """What its scores depend on, for `evaluation.json`."""
        return {
            "tasks": [
                *(task.name for task in self.answers),
                *(name.partition("=")[0] for name in self.tasks),
                *(column.task for column in self.columns),
                *(name for name, _ in self.judged),
            ],
            "limit": self.limit,
            "batch_size": self.batch_size,
        }


def of_recipe(recipe: Recipe, **how: Any) -> Wanted:
    """What a recipe asks for: its `evaluation` section, and `data.answers`.

    Args:
        **how: attributes of `Wanted` to take in the place of the recipe's; None is the recipe's.
    Raises:
        UserError: a task or a file is wrong; it says all that is.
    """
    section = recipe.evaluation
    of_section = {"limit": section.limit, "batch_size": section.batch_size, "allow_code": section.allow_code}
    how = of_section | {name: value for name, value in how.items() if value is not None}
    return wanted(section.tasks, section.suite, answers_of(recipe), **how)


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
    **how: Any,
) -> Wanted:
    """Sort task names into those of held-out prompts and those of the harness, and check them all.

    Args:
        tasks: a file of rows with a prompt and an `answer`, or a name of `Wanted.tasks`.
        answers: more tasks, already read.
        max_new_tokens: the longest answer to rows of a file.
        **how: the other attributes of `Wanted`.
    Raises:
        UserError: a task or a file is wrong; it says all that is.
    """
    of_rows = [name for name in tasks if name.endswith(ROWS) and "=" not in name]
    read = [
        _answers_task(
            Path(name).name.partition(".")[0],
            Answers.model_validate({"path": found(name), "max_new_tokens": max_new_tokens}),
        )
        for name in of_rows
    ]
    if suite not in (None, "olmoe"):
        raise UserError(f"evaluation: found the suite {suite}; allowed: olmoe; choose it, or name tasks")
    names = [name for name in tasks if name not in of_rows]
    named = {name.partition("=")[0]: name.partition("=")[2] or None for name in names}
    judged = tuple((name, named.pop(name, None)) for name in get_args(JudgedName) if suite or name in named)
    columns = tuple(
        column
        for column in SUITE
        if not column.judged
        and (column.group in named or (suite and (how.get("allow_code") or not column.runs_code)))
        and named.pop(column.group, None) is None
    )
    names = [name for name in names if name.partition("=")[0] in named]
    if names or columns:
        require_harness()
    if names:
        from olmoe_ft.evaluation.task_files import check_tasks

        check_tasks(names)
    asked = Wanted((*answers, *read), tuple(names), columns, judged, **how)
    every = asked.settings()["tasks"]
    if twice := sorted({name for name in every if every.count(name) > 1}):
        raise UserError(f"evaluation: found {', '.join(twice)} more than once; name each task once")
    return asked


def require_harness() -> None:
    """Raises:
    UserError: lm-eval is not installed.
    """
    from importlib.util import find_spec

    if find_spec("lm_eval") is None:
        raise UserError(
            "evaluation: tasks of lm-eval need the package lm_eval, which is not installed; "
            "`pip install 'olmoe_ft[evaluation]'`, or name a file of held-out prompts, which needs no harness"
        )


def _answers_task(name: str, answers: Answers) -> AnswersTask:
    return AnswersTask(name, load_questions(answers), answers.max_new_tokens, answers.batch_size)
