"""Put tasks to a model: the weights of a checkpoint on disk, so that what is scored is what a user will load."""

import random
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import numpy as np
import torch
from accelerate import PartialState
from transformers import GenerationConfig, PreTrainedTokenizerBase

from olmoe_ft.checkpoints.folders import check_weights, load_config, resolve_checkpoint
from olmoe_ft.checkpoints.weights import load_whole
from olmoe_ft.data.tokenizer import has_chat_template, load_tokenizer
from olmoe_ft.evaluation.contamination import Overlaps, without_seen
from olmoe_ft.evaluation.engine import OlmoeEngine, end_tokens
from olmoe_ft.evaluation.processes import start_processes
from olmoe_ft.evaluation.put import Loaded, load, put
from olmoe_ft.evaluation.requests import Engine
from olmoe_ft.evaluation.score import Evaluation, When
from olmoe_ft.evaluation.vllm_engine import VllmEngine
from olmoe_ft.evaluation.wanted import EngineName, Wanted, wanted


def evaluate(
    model: str,
    tasks: str | Sequence[str],
    *,
    suite: str | None = None,
    max_new_tokens: int = 64,
    batch_size: int = 64,
    limit: int | None = None,
    allow_code: bool = False,
) -> Evaluation:
    """Score a model on tasks.

    Args:
        model: a run directory or checkpoint folder, with or without adapter, or a Hub name.
        tasks: names of tasks, task files, or files of rows with a prompt and an `answer`; what comes with olmoe_ft is
            found from anywhere.
        suite: "olmoe" for the columns of the paper's table.
        max_new_tokens: the longest answer to rows of a file, in tokens.
        batch_size: requests that each process answers at once.
        limit: put only the first questions of each task.
        allow_code: let tasks run code that the model has written.
    Raises:
        UserError: there is no such model or task, or a file is missing, empty or malformed.
    """
    names = [tasks] if isinstance(tasks, str) else list(tasks)
    how: dict[str, Any] = {"limit": limit, "batch_size": batch_size, "allow_code": allow_code}
    asked = wanted(names, suite, max_new_tokens=max_new_tokens, **how)
    check_weights(folder := resolve_checkpoint(model))
    start_processes()
    return evaluate_checkpoint(folder, *load_questions_for(folder, asked), About(model))


@dataclass(frozen=True)
class About:
    """What is said of an evaluation, and nothing of how it goes.

    Attributes:
        model: its name in the results.
        label: of the progress bars.
        overlaps: what is known of questions in the rows that the model was trained on.
    """

    model: str
    when: When = "command"
    step: int | None = None
    label: str = "evaluating"
    overlaps: Overlaps | None = None


def load_questions_for(folder: str, asked: Wanted) -> tuple[Loaded, PreTrainedTokenizerBase]:
    """The questions for a checkpoint folder, by its own tokenizer, which it comes with.

    Raises:
        UserError: the tokenizer cannot be used, or a task cannot be loaded.
    """
    tokenizer = load_tokenizer(folder, load_config(folder).vocab_size)
    chat = has_chat_template(folder) if asked.chat is None else asked.chat
    with random_state_kept():
        return load(asked, chat), tokenizer


def evaluate_checkpoint(
    folder: str,
    loaded: Loaded,
    tokenizer: PreTrainedTokenizerBase,
    about: About,
    *,
    dtype: str = "auto",
    stop: Callable[[], object] = int,
    engine_name: EngineName = "olmoe_ft",
) -> Evaluation:
    """Load a checkpoint whole in every process, and put the questions to it.

    Args:
        folder: of the checkpoint, or a Hub name.
        dtype: of its weights: "float32", "bfloat16", or "auto" for the checkpoint's own.
        stop: whether this process is to give up.
        engine_name: what answers; vllm where it is installed.
    Raises:
        Interrupted: a process was to give up; in every process.
        UserError: the weights cannot be used, or a task fails on an output.
    """
    start_processes()
    wanted = loaded.wanted
    with random_state_kept():
        if engine_name == "vllm":
            engine: Engine = VllmEngine(folder, tokenizer, dtype, end_tokens(_generation_config(folder), tokenizer))
        else:
            network = load_whole(folder, dtype).to(PartialState().device)
            engine = OlmoeEngine(network, tokenizer, wanted.batch_size, about.label, stop)
        start = time.perf_counter()
        outcome, found = put(engine, tokenizer, loaded)
        loads = engine.loads()
    if about.overlaps is not None:
        outcome = without_seen(outcome, about.overlaps)
    return Evaluation(
        model=about.model,
        step=about.step,
        when=about.when,
        scores=outcome.scores,
        samples=outcome.samples,
        settings={
            **found,
            **loaded.settings(tokenizer),
            "batch_size": wanted.batch_size,
            "dtype": engine.dtype,
            "engine": engine.name,
            "lm_eval": version("lm_eval") if loaded.tasks else None,
        },
        seconds=time.perf_counter() - start,
        new_tokens=engine.new_tokens,
        generating=engine.generating,
        loads=outcome.loads(loads),
    )


def _generation_config(folder: str) -> GenerationConfig | None:
    try:
        return GenerationConfig.from_pretrained(folder)
    except OSError:  # it has none
        return None


@contextmanager
def random_state_kept() -> Iterator[None]:
    """Leave every global generator as it was, so that a training draws the same numbers afterwards."""
    python, numpy = random.getstate(), np.random.get_state()
    devices = [*range(torch.accelerator.device_count())] if torch.accelerator.is_available() else []
    kind = torch.accelerator.current_accelerator()
    try:
        with torch.random.fork_rng(devices, device_type=kind.type if kind else "cuda"):
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)
