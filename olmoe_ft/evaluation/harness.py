"""lm-eval's tasks, put to an `Engine`.

lm-eval (EleutherAI's harness, an optional extra) makes the prompts, reads the outputs and computes the metrics; the
engine answers. Every process makes the same requests and gets all answers, so lm-eval itself never knows of more than
one: nothing is padded, and the scores are in every process.

It runs inside training too: it draws from no global generator, and starts no process.
"""

import logging
import os
import traceback
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext, redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from io import StringIO
from itertools import pairwise
from typing import Any

from lm_eval.evaluator import evaluate
from transformers import PreTrainedTokenizerBase

from olmoe_ft.data.template import template_hash
from olmoe_ft.evaluation.engine_lm import EngineLM
from olmoe_ft.evaluation.harness_results import by_question, headline_of, members_of, sample_of, scores_of
from olmoe_ft.evaluation.requests import Engine
from olmoe_ft.evaluation.score import Outcome
from olmoe_ft.ranks import is_first
from olmoe_ft.reasons import one_line
from olmoe_ft.recipe import UserError

SHOTS_SEED = 1234  # lm-eval's own, for the worked examples that it draws
BOOTSTRAP = 1000  # resamples for the standard error of metrics that are no mean; lm-eval takes 100,000

CODE_OF_TASKS = ("build_all_requests", "apply_filters", "process_results", "_process_results")


@dataclass(frozen=True)
class Harness:
    """How tasks are put.

    Attributes:
        chat: whether questions are put through the tokenizer's chat template.
        turns: whether worked examples are then turns before the question's, rather than in the same one.
        limit: questions of each task, from its start; None takes all.
        allow_code: whether tasks may run code that the model has written.
        seed: of sampled outputs.
        cut: how many prompts lost their start, as they did not fit into the positions; by task.
        short: tasks that want longer outputs than the network has positions, and how many tokens they get: half of
            the positions. lm-eval's own models fail there.
    """

    engine: Engine
    tokenizer: PreTrainedTokenizerBase
    chat: bool
    turns: bool = True
    limit: int | None = None
    allow_code: bool = False
    seed: int = 0
    cut: Counter[str] = field(default_factory=Counter)
    short: dict[str, int] = field(default_factory=dict)

    def run(self, tasks: Mapping[str, Any]) -> Outcome:
        """Put every task's questions, and score the outputs.

        Args:
            tasks: what lm-eval's `TaskManager.load` gives.
        Raises:
            UserError: what a task brings fails on a question or an output.
        """
        for task in tasks["tasks"].values():
            if task.get_config("num_fewshot") is None:
                task.set_config(key="num_fewshot", value=0)
            task.set_fewshot_seed(seed=SHOTS_SEED)
        model = EngineLM(self)
        with quietly(self.allow_code):
            results = self._results(model, tasks)
        samples, documents = [], []
        for name, examples in results["samples"].items():
            of_question = by_question(examples)
            samples += [sample_of(name, number, ones, model.kept[name, number]) for number, ones in of_question.items()]
            documents += [ones[0]["doc"] for ones in of_question.values()]
        counts = Counter((sample.task, metric) for sample in samples for metric in sample.metrics)
        shots, higher = results["n-shot"], results["higher_is_better"]
        template = template_hash(self.tokenizer) if self.chat else None
        scores = [
            score
            for name, values in results["results"].items()
            for score in scores_of(name, values, counts, int(shots.get(name) or 0), template, higher.get(name) or {})
        ]
        for task in [task for task, count in self.cut.items() if not count]:
            del self.cut[task]
        children = results["group_subtasks"]
        return Outcome(scores, samples, documents, members_of(children), headline_of(tasks["tasks"], children, scores))

    def _results(self, model: EngineLM, tasks: Mapping[str, Any]) -> dict[str, Any]:
        try:
            results: Any = evaluate(
                model,
                tasks,
                limit=self.limit,
                bootstrap_iters=BOOTSTRAP,
                log_samples=True,
                apply_chat_template=self.chat,
                fewshot_as_multiturn=self.chat and self.turns,
                confirm_run_unsafe_code=self.allow_code,
            )
        except (UserError, MemoryError):
            raise
        except Exception as error:
            if (task := _whose_code(error)) is None:
                raise
            raise UserError(
                f"{task}: the task fails with {type(error).__name__}: {one_line(error)}; correct it, or leave it out"
            ) from error
        assert results is not None  # every process is the first one to lm-eval
        return results


@contextmanager
def quietly(allow_code: bool) -> Iterator[None]:
    """Around lm-eval's loading and running of tasks, which prints what it does.

    Bootstrapping starts no processes. Hugging Face's `evaluate` asks for a consent of its own to run code, also when a
    task that does is loaded.
    """
    wanted = {"DISABLE_MULTIPROC": "1", **({"HF_ALLOW_CODE_EVAL": "1"} if allow_code else {})}
    before = {name: os.environ.get(name) for name in wanted}
    os.environ.update(wanted)
    log = logging.getLogger("lm_eval")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        with redirect_stdout(StringIO()), nullcontext() if is_first() else redirect_stderr(StringIO()):
            yield
    finally:
        log.setLevel(level)
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _whose_code(error: BaseException) -> str | None:
    """The task, and where it is known the question, whose prompts or marks have raised an error; None where something
    else has. lm-eval does not say, so it is read from the frame of its `evaluate`."""
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    for frame, called in pairwise(frames):
        if frame.f_code.co_name == "evaluate" and called.f_code.co_name in CODE_OF_TASKS:
            place = f", question {frame.f_locals['doc_id']}" if called.f_code.co_name == "process_results" else ""
            return f"{frame.f_locals.get('task_name')}{place}"
    return None
