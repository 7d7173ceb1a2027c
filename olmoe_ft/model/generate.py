"""Text from a model: a batch of prompts, each continued token by token.

Shapes: B rows, R rows that go on, T tokens of prompts, L layers, E experts, K experts per token, V vocabulary.
"""

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from olmoe_ft.model.attention_plan import BOUNDS
from olmoe_ft.model.choices import choices
from olmoe_ft.model.experts.few_rows import generating
from olmoe_ft.model.implementations import attention_implementation
from olmoe_ft.model.olmoe import OlmoeForCausalLM
from olmoe_ft.model.row_cache import RowCache
from olmoe_ft.model.sampling import Sampler, Sampling, next_tokens

PACKED = 16_384  # tokens of prompts that are read at once
Stopped = Callable[[int, Sequence[int]], bool]


@dataclass
class Generated:
    """What a prompt was continued with."""

    tokens: list[int]
    """With the token that ended it."""
    experts: Tensor
    """(L, E): how often each expert was chosen in the passes that brought forth these tokens."""


def generate(
    model: OlmoeForCausalLM,
    prompts: Sequence[Sequence[int]],
    *,
    max_new_tokens: Sequence[int],
    end_tokens: Collection[int],
    stopped: Stopped | None = None,
    sampling: Sequence[Sampling | None] | None = None,
) -> list[Generated]:
    """Continue prompts, all together; each until a token or `stopped` ends it or it is long enough.

    The model runs in evaluation mode and gets its mode back. The random numbers of torch are not touched.

    Args:
        prompts: token ids, at least one each.
        max_new_tokens: for each prompt.
        end_tokens: each of them ends a row.
        stopped: the number of a prompt and its new tokens so far -> whether they are enough; asked after each token.
        sampling: for each prompt; None, or None for a prompt, takes the likeliest token.
    Raises:
        ValueError: a prompt has no token.
    """
    if not all(prompts):
        raise ValueError("each prompt must have at least one token")
    assert len(prompts) == len(max_new_tokens) and len(sampling or prompts) == len(prompts)
    new: list[list[int]] = [[] for _ in prompts]
    asked = [number for number, most in enumerate(max_new_tokens) if most > 0]
    counts = torch.zeros(len(prompts), model.config.num_hidden_layers, model.config.num_experts, dtype=torch.int32)
    if asked:
        samplers = [None if how is None else Sampler(how) for how in sampling or [None] * len(prompts)]

        def goes_on(row: int, token: int) -> bool:
            """Take the row's next token. Whether it needs another."""
            new[row].append(token)
            ended = token in end_tokens or len(new[row]) == max_new_tokens[row]
            return not (ended or (stopped is not None and stopped(row, new[row])))

        with without_gradients(model), evaluating(model), generating():
            batch = Batch(model, [prompts[row] for row in asked])
            rows, logits = asked, batch.read_prompts()
            while True:
                tokens = next_tokens(logits, [samplers[row] for row in rows])
                stays = [place for place, pair in enumerate(zip(rows, tokens.tolist(), strict=True)) if goes_on(*pair)]
                if not stays:
                    break
                if len(stays) < len(rows):
                    was = batch.keep(stays)
                    rows, tokens = [rows[place] for place in was], tokens[was]
                logits = batch.step(tokens)
        counts[asked] = batch.chosen.cpu()
    return [Generated(*each) for each in zip(new, counts, strict=True)]


def without_gradients(model: nn.Module) -> AbstractContextManager:
    """Inference mode, in which a small network is a sixth faster than under `no_grad`. A weight that DeepSpeed gathers
    in it could not be trained afterwards: there `no_grad`."""
    gathered = any(hasattr(weight, "ds_id") for weight in model.parameters())  # ZeRO-3
    return torch.no_grad() if gathered else torch.inference_mode()


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """In the block the model is in evaluation mode; behind it, each of its modules is in the mode it was in."""
    training = [module for module in model.modules() if module.training]
    for module in training:
        module.training = False
    try:
        yield
    finally:
        for module in training:
            module.training = True


class Batch:
    """Rows of a model that go on, and which experts worked for each row that there ever was."""

    def __init__(self, model: OlmoeForCausalLM, prompts: Sequence[Sequence[int]]) -> None:
        config, device = model.config, model.device
        self.model, self.prompts = model, prompts
        lengths = [len(prompt) for prompt in prompts]
        self.cache = RowCache(config.num_hidden_layers, lengths, device)
        self.positions = torch.tensor(lengths, device=device).unsqueeze(1)  # (R, 1), of the next tokens
        self.adds_mask = attention_implementation(config) in ("sdpa", "eager")
        shape = len(prompts), config.num_hidden_layers, config.num_experts
        self.chosen = torch.zeros(shape, dtype=torch.int32, device=device)  # (B, L, E)
        self.counters = torch.arange(0, self.chosen.numel(), config.num_experts, device=device).view(*shape[:2], 1)

    def read_prompts(self) -> Tensor:
        """The logits (B, V) of each row's first new token."""
        rows: list[int] = []
        groups = [rows]
        for row, prompt in enumerate(self.prompts):
            if rows and sum(len(self.prompts[other]) for other in rows) + len(prompt) > PACKED:
                groups.append(rows := [])
            rows.append(row)
        return torch.cat([self._read(group) for group in groups])

    def _read(self, rows: list[int]) -> Tensor:
        prompts, device = [torch.tensor(self.prompts[row]) for row in rows], self.model.device
        lengths = [prompt.numel() for prompt in prompts]
        bounds = torch.tensor([0, *accumulate(lengths)], dtype=torch.int32, device=device)
        self.cache.begin_prompts(rows)
        return self._forward(
            (bounds[1:] - 1).long(),
            self.counters[rows],
            input_ids=torch.cat(prompts).to(device).unsqueeze(0),
            position_ids=torch.cat([torch.arange(length) for length in lengths]).to(device).unsqueeze(0),
            **dict(zip(BOUNDS, (bounds, bounds, max(lengths), max(lengths)), strict=True)),
        )

    def step(self, tokens: Tensor) -> Tensor:
        """The rows' newest tokens (R,) -> the logits (R, V) of those that follow."""
        self.cache.begin_step()
        mask = self.cache.mask(self.adds_mask)
        ids = tokens.unsqueeze(1)
        logits = self._forward(None, self.counters, input_ids=ids, attention_mask=mask, position_ids=self.positions)
        self.positions += 1
        return logits

    def _forward(self, last: Tensor | None, counters: Tensor, **inputs: Any) -> Tensor:
        """The logits (R, V) behind the tokens whose numbers are `last` (R,), or behind all; their experts are counted.

        Args:
            counters: (R, L, 1), where in `chosen` the first expert of a row's layer is.
        """
        outputs = self.model.model(**inputs, past_key_values=self.cache, use_cache=True, output_router_logits=True)
        hidden, router_logits = outputs.last_hidden_state.flatten(0, 1), outputs.router_logits
        if last is not None:
            hidden, router_logits = hidden[last], [logits[last] for logits in router_logits]
        places = (choices(router_logits, self.model.config.num_experts_per_tok) + counters).flatten()  # (R·L·K,)
        self.chosen.view(-1).index_add_(0, places, torch.ones_like(places, dtype=self.chosen.dtype))
        return self.model.lm_head(hidden)

    def keep(self, stays: Sequence[int]) -> list[int]:
        """Go on with these rows alone; of each row in its new order, where it was before."""
        was = self.cache.keep(stays)
        self.positions, self.counters = self.positions[was], self.counters[was]
        return was


def complete(
    model: OlmoeForCausalLM, tokenizer: PreTrainedTokenizerBase, prompts: list[str], max_new_tokens: int
) -> list[str]:
    """What the model says behind each text: greedy, up to EOS or `max_new_tokens`."""
    if not prompts:
        return []
    ids = tokenizer(prompts, add_special_tokens=False)["input_ids"]  # the chat template has written special tokens
    ends = {tokenizer.eos_token_id} - {None}
    generated = generate(model, ids, max_new_tokens=[max_new_tokens] * len(ids), end_tokens=ends)
    return tokenizer.batch_decode([each.tokens for each in generated], skip_special_tokens=True)
