"""An `Engine` by lm-eval's interface of a model."""

import hashlib
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from lm_eval.api.instance import Instance
from lm_eval.api.model import TemplateLM
from lm_eval.models.utils import normalize_gen_kwargs
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window

from olmoe_ft.data.template import prompts
from olmoe_ft.evaluation.requests import Ask, Expert, Pair
from olmoe_ft.recipe import UserError

if TYPE_CHECKING:
    from olmoe_ft.evaluation.harness import Harness

DEFAULT_NEW_TOKENS = 256  # of a task that does not say, as in lm-eval's own models


@dataclass
class Kept:
    """What the engine has said of a question beside its text."""

    tokens: int = 0
    experts: list[Expert] = field(default_factory=list)
    likeliest: float = float("-inf")


class EngineLM(TemplateLM):
    """An engine by lm-eval's interface."""

    def __init__(self, harness: "Harness") -> None:
        super().__init__()
        self.harness, self.engine, self.tokenizer = harness, harness.engine, harness.tokenizer
        self.kept: dict[tuple[Any, Any], Kept] = defaultdict(Kept)

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
        self._tasks = [str(request.task_name) for request in requests]
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
        tasks = zip(requests, self._tasks, strict=True)
        weighed = self.engine.weigh([Pair(tuple(context), tuple(rest), task) for (_, context, rest), task in tasks])
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
        weighed = self.engine.weigh(
            [Pair(tuple(context), tuple(rest), str(requests[index].task_name)) for index, (context, rest) in windows]
        )
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
            task=str(request.task_name),
        )
