"""Answers requests with our own network: batches by length, dealt to the processes of a launch, gathered again.

Which requests share a batch depends on the requests and on `batch_size` alone, never on the number of processes: these
are dealt whole batches. So a launch of any size computes the same numbers. Each process has the whole network, and no
collective runs while a batch is answered: processes may take different times and numbers of tokens.

Shapes: B rows of a batch, S tokens of a row, L layers, E experts, V vocabulary.
"""

import time
from collections import defaultdict
from collections.abc import Callable, Collection, Sequence
from typing import Any, TypeVar

import numpy as np
import torch
from accelerate import PartialState
from accelerate.utils import gather_object
from torch import Tensor
from tqdm import tqdm
from transformers import GenerationConfig, PreTrainedTokenizerBase

from olmoe_ft.data.template import answer_endings, special_tokens
from olmoe_ft.evaluation.requests import Ask, Expert, Pair, Said, Weighed
from olmoe_ft.model import OlmoeForCausalLM
from olmoe_ft.model.choices import busiest, choices, counted
from olmoe_ft.model.generate import generate
from olmoe_ft.model.sampling import Sampling

TAIL = 2  # tokens before those of a text to stop at: one may begin before it


class Interrupted(Exception):
    """A process was asked to give up; raised in every one."""


Request = TypeVar("Request")
Answer = TypeVar("Answer")


class OlmoeEngine:
    """An `Engine` (requests.py).

    Args:
        model: whole, on this process's device.
        batch_size: requests that each process answers at once.
        label: of the progress bars.
        stop: whether this process is to give up, asked before each batch.
    """

    name = "olmoe_ft"

    def __init__(
        self,
        model: OlmoeForCausalLM,
        tokenizer: PreTrainedTokenizerBase,
        batch_size: int,
        label: str = "evaluating",
        stop: Callable[[], object] = int,
    ) -> None:
        self.model, self.tokenizer, self.batch_size = model.eval(), tokenizer, batch_size
        self.label, self.stop = label, stop
        self.dtype = str(model.dtype).removeprefix("torch.")
        self.max_length: int = model.config.max_position_embeddings
        self.end_tokens = end_tokens(model.generation_config, tokenizer)
        self.new_tokens, self.generating = 0, 0.0
        self.counts: dict[str, np.ndarray] = {}  # (L, E) int64 by task: choices of experts in this process

    def generate(self, asks: Sequence[Ask], batch_size: int | None = None) -> list[Said]:
        """What the model says behind each text, in order; the same in every process.

        Args:
            batch_size: None takes the engine's.
        """
        size, start = batch_size or self.batch_size, time.perf_counter()
        said = self._shared(asks, size, lambda ask: (len(ask.tokens), ask.max_new_tokens), self._generate)
        self.new_tokens += sum(len(one.tokens) for one in said)
        self.generating += time.perf_counter() - start
        return said

    def weigh(self, pairs: Sequence[Pair]) -> list[Weighed]:
        """How likely each continuation is, in order; the same in every process.

        Continuations that differ in their last token alone, as the letters of a multiple choice do, are read off one
        row.
        """
        rows: dict[tuple[int, ...], list[int]] = defaultdict(list)
        for index, pair in enumerate(pairs):
            rows[(*pair.context, *pair.continuation[:-1])].append(index)
        groups = [[pairs[index] for index in indices] for indices in rows.values()]
        weighed = self._shared(groups, self.batch_size, lambda group: _read(group[0], self.max_length), self._weigh)
        found: list[Weighed | None] = [None] * len(pairs)
        for indices, ones in zip(rows.values(), weighed, strict=True):
            for index, one in zip(indices, ones, strict=True):
                found[index] = one
        return [one for one in found if one is not None]

    def loads(self) -> dict[str, list[list[int]]]:
        """How often each expert was chosen, by task. A text that several choices share but for their last token is
        counted once."""
        found: dict[str, np.ndarray] = {}
        for counts in gather_object([self.counts]):
            for task, one in counts.items():
                found[task] = found.get(task, 0) + one
        return {task: found[task].tolist() for task in sorted(found)}

    def _count(self, tasks: Collection[str], experts: Tensor) -> None:
        """Add choices (L, E) to the tasks they were made for."""
        for task in tasks:
            self.counts[task] = self.counts.get(task, 0) + experts.cpu().numpy().astype(np.int64)

    def _shared(
        self,
        requests: Sequence[Request],
        size: int,
        cost: Callable[[Request], Any],
        answer: Callable[[list[Request]], list[Answer]],
    ) -> list[Answer]:
        """Every request's answer, in order. The costliest come first: memory that is not enough is found at once.

        Raises:
            Interrupted: a process was to give up.
        """
        state = PartialState()
        order = sorted(range(len(requests)), key=lambda index: cost(requests[index]), reverse=True)
        batches = [order[start : start + size] for start in range(0, len(order), size)]
        mine: list[tuple[int, Answer]] = []
        bar = tqdm(total=len(requests), desc=self.label, disable=not state.is_main_process, leave=False)
        for number, batch in enumerate(batches):
            if self.stop():
                break
            if number % state.num_processes == state.process_index:
                mine += zip(batch, answer([requests[index] for index in batch]), strict=True)
            bar.update(len(batch))
        bar.close()
        answers = dict(gather_object(mine))
        if len(answers) < len(requests):
            raise Interrupted
        return [answers[index] for index in range(len(requests))]

    def _generate(self, asks: list[Ask]) -> list[Said]:
        generated = generate(
            self.model,
            [ask.tokens for ask in asks],
            max_new_tokens=[ask.max_new_tokens for ask in asks],
            end_tokens=self.end_tokens,
            stopped=self._stops(asks),
            sampling=[Sampling(ask.temperature, ask.top_p, ask.seed) if ask.temperature else None for ask in asks],
        )
        texts = self.tokenizer.batch_decode([one.tokens for one in generated], skip_special_tokens=True)
        for ask, one in zip(asks, generated, strict=True):
            self._count([ask.task], one.experts)
        return [
            Said(_cut(text, ask.until), tuple(one.tokens), busiest(one.experts))
            for ask, text, one in zip(asks, texts, generated, strict=True)
        ]

    def _stops(self, asks: list[Ask]) -> Callable[[int, Sequence[int]], bool] | None:
        """Whether a row holds a text to stop at; None where there is no such text."""
        if not any(ask.until for ask in asks):
            return None
        sizes = {text: len(text.encode()) for ask in asks for text in ask.until}  # a token has a byte at least

        def stopped(row: int, tokens: Sequence[int]) -> bool:
            until = asks[row].until
            if not until:
                return False
            tail = self.tokenizer.decode(tokens[-max(sizes[text] for text in until) - TAIL :])
            return any(text in tail for text in until)

        return stopped

    @torch.inference_mode()
    def _weigh(self, groups: list[list[Pair]]) -> list[list[Weighed]]:
        """Rows are padded on the right, where causal attention lets nobody look."""
        rows = [[*group[0].context, *group[0].continuation][-(self.max_length + 1) :][:-1] for group in groups]
        width, pad = max(map(len, rows)), self.tokenizer.pad_token_id
        assert pad is not None  # load_tokenizer sees to it
        ids = torch.tensor([[*row, *[pad] * (width - len(row))] for row in rows])
        mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows])
        device = self.model.device
        outputs = self.model.model(
            input_ids=ids.to(device),
            attention_mask=None if bool(mask.all()) else mask.to(device),
            use_cache=False,
            output_router_logits=True,
            return_dict=True,
        )
        config = self.model.config
        chosen = choices(outputs.router_logits, config.num_experts_per_tok)  # (B·S, L, K)
        chosen = chosen.view(len(rows), width, *chosen.shape[1:])
        found = []
        for place, (group, row) in enumerate(zip(groups, rows, strict=True)):
            places = slice(len(row) - len(group[0].continuation), len(row))
            logits = self.model.lm_head(outputs.last_hidden_state[place, places])  # (continuation, V)
            experts = counted(chosen[place, places], config.num_experts)
            self._count({pair.task for pair in group}, experts)
            found.append(_weighed(logits, group, busiest(experts)))
        return found


def _weighed(logits: Tensor, group: list[Pair], experts: list[Expert]) -> list[Weighed]:
    """The continuations of a row, which share all but their last token.

    Args:
        logits: (tokens of the continuation, V).
    """
    logprobs = logits.float().log_softmax(-1)
    best = logprobs.argmax(-1)
    found = []
    for pair in group:
        wanted = torch.tensor(pair.continuation, device=logits.device)
        total = logprobs.gather(-1, wanted[:, None]).sum()
        found.append(Weighed(float(total), bool((best == wanted).all()), experts))
    return found


def end_tokens(generation: GenerationConfig | None, tokenizer: PreTrainedTokenizerBase) -> frozenset[int]:
    """Every token that ends a turn: the tokenizer's EOS, those of the model's generation config, and the special token
    that the chat template writes behind an answer."""
    ends = {tokenizer.eos_token_id}
    configured = generation.eos_token_id if generation is not None else None
    ends |= {*configured} if isinstance(configured, list) else {configured} - {None}
    special = {*tokenizer.all_special_ids}
    for ending in answer_endings(str(tokenizer.chat_template), special_tokens(tokenizer)):
        first = tokenizer.encode(ending, add_special_tokens=False)[:1]
        ends |= special & {*first}
    return frozenset(ends)


def _read(pair: Pair, max_length: int) -> int:
    return min(len(pair.context) + len(pair.continuation) - 1, max_length)


def _cut(text: str, until: Sequence[str]) -> str:
    for end in until:
        text = text.split(end)[0] if end else text
    return text
