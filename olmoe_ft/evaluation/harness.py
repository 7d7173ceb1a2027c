"""lm-eval's tasks, put to an `Engine`.

lm-eval (EleutherAI's harness, an optional extra) makes the prompts, reads the outputs and computes the metrics; the
engine answers. Every process makes the same requests and gets all answers, so lm-eval itself never knows of more than
one: nothing is padded, and the scores are in every process.

It runs inside training too: it draws from no global generator, and starts no process.
"""

import hashlib
import logging
import os
import traceback
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from io import StringIO
from itertools import pairwise
from typing import Any

from lm_eval.api.instance import Instance
from lm_eval.api.model import TemplateLM
from lm_eval.evaluator import evaluate
from lm_eval.models.utils import normalize_gen_kwargs
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window
from transformers import PreTrainedTokenizerBase

from olmoe_ft.data.template import prompts, template_hash
from olmoe_ft.evaluation.requests import Ask, Engine, Expert, Pair
from olmoe_ft.evaluation.score import Outcome, Sample, Score, digest
from olmoe_ft.ranks import is_first
from olmoe_ft.reasons import one_line
from olmoe_ft.recipe import UserError

SHOTS_SEED = 1234  # lm-eval's own, for the worked examples that it draws
BOOTSTRAP = 1000  # resamples for the standard error of metrics that are no mean; lm-eval takes 100,000
DEFAULT_NEW_TOKENS = 256  # of a task that does not say, as in lm-eval's own models
NO_FILTER = "none"

CODE_OF_TASKS = ("build_all_requests", "apply_filters", "process_results", "_process_results")
Example = Mapping[str, Any]  # a line of lm-eval's samples


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
        model = _EngineLM(self)
        with quietly(self.allow_code):
            results = self._results(model, tasks)
        samples, documents = [], []
        for name, examples in results["samples"].items():
            of_question = _by_question(examples)
            samples += [_sample(name, number, ones, model.kept[name, number]) for number, ones in of_question.items()]
            documents += [ones[0]["doc"] for ones in of_question.values()]
        counts = Counter((sample.task, metric) for sample in samples for metric in sample.metrics)
        shots = results["n-shot"]
        template = template_hash(self.tokenizer) if self.chat else None
        scores = [
            score
            for name, values in results["results"].items()
            for score in _scores(name, values, counts, int(shots.get(name) or 0), template)
        ]
        for task in [task for task, count in self.cut.items() if not count]:
            del self.cut[task]
        children = results["group_subtasks"]
        return Outcome(scores, samples, documents, _members(children), _headline(tasks["tasks"], children, scores))

    def _results(self, model: "_EngineLM", tasks: Mapping[str, Any]) -> dict[str, Any]:
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


@dataclass
class _Kept:
    """What the engine has said of a question beside its text."""

    tokens: int = 0
    experts: list[Expert] = field(default_factory=list)
    likeliest: float = float("-inf")


class _EngineLM(TemplateLM):
    """An engine by lm-eval's interface."""

    def __init__(self, harness: Harness) -> None:
        super().__init__()
        self.harness, self.engine, self.tokenizer = harness, harness.engine, harness.tokenizer
        self.kept: dict[tuple[Any, Any], _Kept] = defaultdict(_Kept)

    @property
    def eot_token_id(self) -> int:
        return self.tokenizer.eos_token_id

    @property
    def prefix_token_id(self) -> int:
        bos = self.tokenizer.bos_token_id
        return self.eot_token_id if bos is None else bos

    @property
    def tokenizer_name(self) -> str:
        return str(self.tokenizer.name_or_path)

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **kwargs: Any) -> list[int]:
        """Token ids; a text that begins with BOS gets no second one."""
        if add_special_tokens is None:
            add_special_tokens = not string.startswith(self.tokenizer.decode([self.prefix_token_id]))
        return self.tokenizer.encode(string, add_special_tokens=add_special_tokens)

    def apply_chat_template(self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
        """The prompt for the next answer, or for the rest of the answer that the last message begins."""
        if add_generation_prompt:
            return prompts([chat_history], self.tokenizer)[0]
        return prompts([chat_history[:-1]], self.tokenizer)[0] + chat_history[-1]["content"]

    def loglikelihood(self, requests: list[Instance], disable_tqdm: bool = True) -> list[tuple[float, bool]]:
        found = super().loglikelihood(requests, disable_tqdm=True)
        of_pairs = zip(requests, found, self._weighed, self._lengths, strict=True)
        for request, (logprob, _), (tokens, experts), length in of_pairs:
            self.harness.cut[str(request.task_name)] += length > self.engine.max_length
            kept = self.kept[request.task_name, request.doc_id]
            if logprob > kept.likeliest:
                kept.tokens, kept.experts, kept.likeliest = tokens, experts, logprob
        return found

    def _loglikelihood_tokens(
        self, requests: list[tuple[tuple[str, str], list[int], list[int]]], **kwargs: Any
    ) -> list[tuple[float, bool]]:
        if longest := next((pair for pair in requests if len(pair[2]) > self.engine.max_length), None):
            raise UserError(
                f"found a continuation of {len(longest[2]):,} tokens ({longest[0][1][:60]!r}), but the model has "
                f"{self.engine.max_length:,} positions; leave its task out"
            )
        self._lengths = [len(context) + len(rest) - 1 for _, context, rest in requests]
        weighed = self.engine.weigh([Pair(tuple(context), tuple(rest)) for _, context, rest in requests])
        self._weighed = [(len(rest), one.experts) for (_, _, rest), one in zip(requests, weighed, strict=True)]
        return [(one.logprob, one.greedy) for one in weighed]

    def loglikelihood_rolling(self, requests: list[Instance], disable_tqdm: bool = True) -> list[float]:
        """Of whole texts, in windows as wide as the network's positions; no window sees another."""
        windows = [
            (index, make_disjoint_window(window))
            for index, request in enumerate(requests)
            for window in get_rolling_token_windows(
                self.tok_encode(request.args[0]), self.prefix_token_id, self.engine.max_length, context_len=1
            )
        ]
        weighed = self.engine.weigh([Pair(tuple(context), tuple(rest)) for _, (context, rest) in windows])
        totals = [0.0] * len(requests)
        for (index, (_, rest)), one in zip(windows, weighed, strict=True):
            totals[index] += one.logprob
            kept = self.kept[requests[index].task_name, requests[index].doc_id]
            kept.tokens, kept.experts = kept.tokens + len(rest), one.experts
        return totals

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = True) -> list[str]:
        repeats: Counter[int] = Counter()
        asks = []
        for request in requests:
            asks.append(self._ask(request, repeats[id(request)]))
            repeats[id(request)] += 1
        said = self.engine.generate(asks)
        for request, one in zip(requests, said, strict=True):
            kept = self.kept[request.task_name, request.doc_id]
            kept.tokens += len(one.tokens)
            kept.experts = kept.experts or one.experts
        return [one.text for one in said]

    def _ask(self, request: Instance, repeat: int) -> Ask:
        """The request for an output; a context that leaves no room for it loses its start, as in lm-eval."""
        context, wishes = request.args
        options = normalize_gen_kwargs(wishes, DEFAULT_NEW_TOKENS)
        new, until = options["max_gen_toks"], options["until"]
        temperature = options.get("temperature", 1.0 if options.get("do_sample") else 0.0)
        positions = self.engine.max_length
        if new >= positions:
            new = positions // 2
            self.harness.short[str(request.task_name)] = new
        room = positions - new
        until = [text for text in ([until] if isinstance(until, str) else until or []) if text]
        tokens = self.tok_encode(context)
        if len(tokens) > room:
            self.harness.cut[str(request.task_name)] += 1
        drawn = hashlib.sha256(f"{self.harness.seed}/{request.task_name}/{request.doc_id}/{repeat}".encode()).digest()
        return Ask(
            tokens=tuple(tokens[-room:]),
            max_new_tokens=new,
            until=tuple(until),
            temperature=temperature,
            top_p=options.get("top_p", 1.0),
            seed=int.from_bytes(drawn[:7]),
        )


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


def _scores(
    task: str, values: Mapping[str, Any], counts: Mapping[tuple[str, str], int], shots: int, template: str | None
) -> Iterator[Score]:
    """lm-eval's results of a task or a group: `metric,filter` and `metric_stderr,filter`.

    Args:
        counts: questions that have a metric, by task and metric; lm-eval gives one number for all metrics of a task.
    """
    for key, value in values.items():
        metric, comma, read_by = key.partition(",")
        if not comma or metric.endswith("_stderr") or not isinstance(value, int | float):
            continue
        stderr, name = values.get(f"{metric}_stderr,{read_by}"), metric_name(metric, read_by)
        yield Score(
            task=task,
            metric=name,
            value=float(value),
            stderr=float(stderr) if isinstance(stderr, int | float) else None,
            n=counts.get((task, name), int(values["sample_len"])),
            shots=shots,
            template=template,
        )


def metric_name(metric: str, read_by: str) -> str:
    """As a `Score` names it.

    Args:
        read_by: lm-eval's filter that reads the output.
    """
    return metric if read_by == NO_FILTER else f"{metric}/{read_by}"


def _members(children: Mapping[str, Sequence[str]]) -> dict[str, set[str]]:
    """The tasks below each group, through the groups in it."""

    def below(name: str) -> set[str]:
        return set().union(*map(below, children[name])) if children.get(name) else {name}

    return {group: below(group) for group, ones in children.items() if ones}


def _headline(tasks: Mapping[str, Any], children: Mapping[str, Sequence[str]], scores: Sequence[Score]) -> list[str]:
    """The tasks and groups that answer what was asked: of a group without a score of its own, its members."""
    scored, below = {score.task for score in scores}, {child for ones in children.values() for child in ones}

    def answering(name: str) -> list[str]:
        if name in scored or not children.get(name):
            return [name]
        return [one for child in children[name] for one in answering(child)]

    roots = [name for name in (*children, *tasks) if name not in below]
    return [one for root in dict.fromkeys(roots) for one in answering(root)]


def _by_question(examples: Sequence[Example]) -> dict[int, list[Example]]:
    """lm-eval lists a question once for each filter."""
    found: dict[int, list[Example]] = defaultdict(list)
    for example in sorted(examples, key=lambda one: one["doc_id"]):
        found[example["doc_id"]].append(example)
    return found


def _sample(task: str, number: int, ones: Sequence[Example], kept: _Kept) -> Sample:
    metrics = {
        metric_name(metric, one["filter"]): float(one[metric])
        for one in ones
        for metric in one["metrics"]
        if isinstance(one[metric], int | float)
    }
    verdict = next(iter(metrics.values()), None)
    output, expected = _said(ones[0])
    return Sample(
        task=task,
        id=number,
        prompt=str(ones[0]["arguments"][0][0]),
        output=output,
        expected=expected,
        right=bool(verdict) if verdict in (0.0, 1.0) else None,
        metrics=metrics,
        tokens=kept.tokens,
        experts=[list(expert) for expert in kept.experts],
        document=digest(ones[0]["doc"]),
    )


def _said(example: Example) -> tuple[str, str]:
    """The model's output and the expected one; of several choices, the likeliest and the right one."""
    answers, target = [resps[0] for resps in example["resps"]], example["target"]
    if not isinstance(answers[0], list | tuple):
        return str(answers[0]), str(target)
    choices = [str(arguments[1]).strip() for arguments in example["arguments"]]
    likeliest = max(range(len(choices)), key=lambda index: answers[index][0])
    right = choices[target] if isinstance(target, int) and len(choices) > target else str(target)
    return choices[likeliest], right
