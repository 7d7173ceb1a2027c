"""Load what is wanted, and put it to an engine: held-out prompts, sets that a judge will look at, lm-eval's tasks."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from transformers import PreTrainedTokenizerBase

from olmoe_ft.data.template import template_hash
from olmoe_ft.evaluation.judged import JudgedPrompt, judged_outputs, judged_prompts
from olmoe_ft.evaluation.requests import Engine
from olmoe_ft.evaluation.score import Outcome, Sample, digest
from olmoe_ft.evaluation.unreachable import refusal_of_task
from olmoe_ft.evaluation.wanted import JudgedName, Wanted
from olmoe_ft.recipe import UserError

# what an engine has of lm-eval's `generation_kwargs`; four names for the longest output
LENGTHS = ("max_gen_toks", "max_new_tokens", "max_tokens", "max_completion_tokens")
OPTIONS = ("until", *LENGTHS, "do_sample", "temperature", "top_p")
PARTS = ("tasks", "groups", "group_map")  # of what lm-eval's `TaskManager.load` gives


@dataclass(frozen=True)
class _Tasks:
    """Tasks of lm-eval that are put alike."""

    loaded: dict[str, Any]
    """What its `TaskManager.load` gives."""
    chat: bool
    turns: bool
    """Whether worked examples are turns of their own, rather than in the same one as the question."""


@dataclass(frozen=True)
class Loaded:
    """All questions of an evaluation."""

    wanted: Wanted
    chat: bool
    """Whether the chat template is used."""
    tasks: list[_Tasks]
    judged: dict[JudgedName, list[JudgedPrompt]]

    def settings(self, tokenizer: PreTrainedTokenizerBase) -> dict[str, Any]:
        """What the scores depend on and is known before a weight is; in `Evaluation.settings`."""
        limit = self.wanted.limit
        return {
            "asked": self.wanted.asked(),
            "questions": {
                **{task.name: task.digest() for task in self.wanted.answers},
                **{name: digest([asdict(one) for one in asked]) for name, asked in self.judged.items()},
                **{
                    name: digest([task.dump_config(), [*task.eval_docs][:limit], tasks.chat, tasks.turns])
                    for tasks in self.tasks
                    for name, task in tasks.loaded["tasks"].items()
                },
            },
            "limit": limit,
            "template": template_hash(tokenizer) if self.chat else None,
        }


def load(wanted: Wanted, chat: bool) -> Loaded:
    """Load all questions, before any weight is.

    Args:
        chat: whether the chat template is used.
    Raises:
        UserError: a dataset cannot be reached, a row is malformed, a task asks for what there is not, or a name is
            given to two tasks.
    """
    tasks = []
    if wanted.tasks:
        ones = [_loaded(name, wanted.allow_code) for name in wanted.tasks]
        together = {part: {name: one for each in ones for name, one in each.get(part, {}).items()} for part in PARTS}
        tasks.append(_Tasks(together, chat, turns=True))
    for column in wanted.columns:
        tasks.append(_Tasks(_loaded(column.group, wanted.allow_code), chat and column.chat, turns=False))
    judged = {name: judged_prompts(name, file, wanted.limit) for name, file in wanted.judged}
    loaded = Loaded(wanted, chat, tasks, judged)
    names = [*(task.name for task in wanted.answers), *judged, *(name for one in tasks for name in one.loaded["tasks"])]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise UserError(f"evaluation: found {', '.join(twice)} more than once; leave out all but one")
    return loaded


def _loaded(name: str, allow_code: bool) -> dict[str, Any]:
    """What a name stands for: a task, a group or the members of a tag."""
    from olmoe_ft.evaluation.harness import quietly
    from olmoe_ft.evaluation.task_files import load_tasks

    try:
        with quietly(allow_code):
            found = dict(load_tasks([name]))
    except UserError:
        raise
    except Exception as error:  # of `datasets`, the Hub, or what a task's own code raises
        raise refusal_of_task(name, error) from error
    for task_name, task in found["tasks"].items():
        if getattr(task, "UNSAFE_CODE", False) and not allow_code:
            raise UserError(
                f"{task_name}: found a task that runs code which the model has written; allow it with --allow-code "
                "(`evaluation.allow_code: true` in a recipe), in a container, or leave the task out"
            )
        if unknown := sorted({*(task.get_config("generation_kwargs") or {})} - {*OPTIONS}):
            raise UserError(
                f"{task_name}: generation_kwargs has {', '.join(unknown)}; allowed: {', '.join(OPTIONS)}; remove it in "
                "a task file of your own, or leave the task out"
            )
    return found


def put(engine: Engine, tokenizer: PreTrainedTokenizerBase, loaded: Loaded) -> tuple[Outcome, dict[str, Any]]:
    """Put all questions; the same in every process.

    Returns:
        what has come of it, and what did not fit into the network's positions, as in `Evaluation.settings`.
    """
    outcome, wanted = Outcome([], [], []), loaded.wanted
    cut: dict[str, int] = {}
    short: dict[str, int] = {}
    for task in wanted.answers:
        outcome += task.put(engine, tokenizer, loaded.chat, wanted.limit)
    for name, asked in loaded.judged.items():
        outcome += _judged(name, asked[: wanted.limit], engine, tokenizer, loaded.chat)
    if loaded.tasks:
        from olmoe_ft.evaluation.harness import Harness
    for tasks in loaded.tasks:
        harness = Harness(engine, tokenizer, tasks.chat, tasks.turns, wanted.limit, wanted.allow_code)
        outcome += harness.run(tasks.loaded)
        cut, short = cut | harness.cut, short | harness.short
    _check_scored(outcome)
    return outcome, {"tasks": outcome.headline, "cut_prompts": cut, "short_outputs": short}


def _check_scored(outcome: Outcome) -> None:
    """Raises:
    UserError: a task has given no score, though none of its questions waits for a judge.
    """
    scored: Mapping[str, Any] = {score.task: score for score in outcome.scores}
    if empty := [name for name in outcome.headline if name not in scored and name not in outcome.judged]:
        raise UserError(f"{', '.join(empty)}: found no score; give the task a metric that its outputs can have")


def _judged(
    name: JudgedName, asked: Sequence[JudgedPrompt], engine: Engine, tokenizer: PreTrainedTokenizerBase, chat: bool
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
            document=digest(asdict(one)),
        )
        for index, (one, (text, said)) in enumerate(
            zip(asked, judged_outputs(name, asked, engine, tokenizer, chat), strict=True)
        )
    ]
    documents: list[Mapping[str, Any]] = [{"prompt": one.text, **one.about} for one in asked]
    return Outcome([], samples, documents, headline=[name], judged=[name])
