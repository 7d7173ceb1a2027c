"""Put what is wanted to an engine: held-out prompts, sets that a judge will look at, and lm-eval's tasks."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from transformers import PreTrainedTokenizerBase

from olmoe_ft.evaluation.judged import JudgedPrompt, judged_outputs, judged_prompts
from olmoe_ft.evaluation.requests import Engine
from olmoe_ft.evaluation.score import Outcome, Sample
from olmoe_ft.evaluation.unreachable import refusal_of_task
from olmoe_ft.evaluation.wanted import JudgedName, Wanted
from olmoe_ft.recipe import UserError


@dataclass(frozen=True)
class _Tasks:
    """Tasks of lm-eval that are put alike."""

    loaded: Any
    """What its `TaskManager.load` gives."""
    chat: bool
    turns: bool
    """Whether worked examples are turns of their own, rather than in the same one as the question."""


@dataclass(frozen=True)
class Loaded:
    """All questions of an evaluation."""

    wanted: Wanted
    tasks: list[_Tasks]
    judged: dict[JudgedName, list[JudgedPrompt]]


def load(wanted: Wanted, chat: bool) -> Loaded:
    """Load all questions, before any weight is.

    Args:
        chat: whether the chat template is used.
    Raises:
        UserError: a dataset cannot be reached, or a row is malformed.
    """
    tasks = []
    if wanted.tasks:
        tasks.append(_Tasks(_loaded(wanted.tasks, wanted.allow_code), chat, turns=True))
    for column in wanted.columns:
        loaded = _loaded([column.group], wanted.allow_code, own_rows=False)
        tasks.append(_Tasks(loaded, chat and column.chat, turns=False))
    return Loaded(wanted, tasks, {name: judged_prompts(name, file, wanted.limit) for name, file in wanted.judged})


def _loaded(names: Sequence[str], allow_code: bool, own_rows: bool = True) -> Any:
    from olmoe_ft.evaluation.harness import quietly
    from olmoe_ft.evaluation.task_files import load_tasks

    try:
        with quietly(allow_code):
            return load_tasks(names)
    except UserError:
        raise
    except Exception as error:  # of `datasets`, the Hub, or what a task's own code raises
        raise refusal_of_task(", ".join(names), error, own_rows=own_rows) from error


def put(engine: Engine, tokenizer: PreTrainedTokenizerBase, loaded: Loaded) -> tuple[Outcome, dict[str, Any]]:
    """Put all questions; the same in every process.

    Returns:
        what has come of it, and what did not fit into the network's positions, as in `Evaluation.settings`.
    """
    outcome, wanted = Outcome([], [], []), loaded.wanted
    cut: dict[str, int] = {}
    short: dict[str, int] = {}
    for task in wanted.answers:
        outcome += task.put(engine, tokenizer, wanted.limit)
    for name, asked in loaded.judged.items():
        outcome += _judged(name, asked, engine, tokenizer)
    if loaded.tasks:
        from olmoe_ft.evaluation.harness import Harness
    for tasks in loaded.tasks:
        harness = Harness(engine, tokenizer, tasks.chat, tasks.turns, wanted.limit, wanted.allow_code)
        outcome += harness.run(tasks.loaded)
        cut, short = cut | harness.cut, short | harness.short
    return outcome, {"cut_prompts": cut, "short_outputs": short}


def _judged(
    name: JudgedName, asked: Sequence[JudgedPrompt], engine: Engine, tokenizer: PreTrainedTokenizerBase
) -> Outcome:
    """Outputs without a score: a judge gives that later."""
    samples = [
        Sample(
            task=name,
            id=index,
            prompt=text,
            output=said.text,
            expected="",
            right=None,
            metrics={},
            tokens=len(said.tokens),
            experts=[list(expert) for expert in said.experts],
        )
        for index, (text, said) in enumerate(judged_outputs(name, asked, engine, tokenizer, engine.max_length))
    ]
    return Outcome([], samples, [{"prompt": one.text, **one.about} for one in asked])
