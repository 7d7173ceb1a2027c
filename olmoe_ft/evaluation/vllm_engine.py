"""Answers requests with vLLM, where it is installed: for large suites on a GPU. It is another implementation of the
network, with other kernels, so scores are compared with our own on some questions first (commands/evaluate.py).
"""

import os
import time
from collections.abc import Sequence
from importlib.util import find_spec
from typing import Any

from transformers import PreTrainedTokenizerBase

from olmoe_ft.checkpoints.folders import is_adapter, load_config
from olmoe_ft.evaluation.requests import Ask, Pair, Said, Weighed
from olmoe_ft.recipe import UserError


def check_vllm(folder: str) -> None:
    """Whether vLLM can be used on a checkpoint here.

    Raises:
        UserError: it cannot.
    """
    if find_spec("vllm") is None:
        raise UserError("--engine: found vllm, which is not installed; `pip install vllm`, or leave --engine out")
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise UserError("--engine: vllm starts its own processes; run `olmoe-ft evaluate` without accelerate launch")
    if is_adapter(folder):
        raise UserError(
            f"{folder}: vllm takes no adapters on experts; fold it in first: olmoe-ft merge {folder} --to FOLDER"
        )


class VllmEngine:
    """An `Engine` (requests.py) of one process.

    Args:
        folder: a checkpoint folder or Hub name, no adapter.
        dtype: "float32", "bfloat16" or "auto".
        ends: tokens that end an output.
    """

    name = "vllm"

    def __init__(self, folder: str, tokenizer: PreTrainedTokenizerBase, dtype: str, ends: frozenset[int]) -> None:
        from vllm import LLM

        self.max_length: int = load_config(folder).max_position_embeddings
        self.llm: Any = LLM(model=folder, tokenizer=str(tokenizer.name_or_path), dtype=dtype, seed=0)
        self.dtype, self.ends, self.new_tokens, self.generating = dtype, ends, 0, 0.0

    def generate(self, asks: Sequence[Ask], batch_size: int | None = None) -> list[Said]:
        """What the model says behind each text; vLLM chooses its own batches."""
        from vllm import SamplingParams

        wishes = [
            SamplingParams(
                max_tokens=ask.max_new_tokens,
                temperature=ask.temperature,
                top_p=ask.top_p,
                seed=ask.seed,
                stop=[*ask.until],
                stop_token_ids=sorted(self.ends),
            )
            for ask in asks
        ]
        start = time.perf_counter()
        outputs = self.llm.generate([{"prompt_token_ids": [*ask.tokens]} for ask in asks], wishes)
        self.generating += time.perf_counter() - start
        said = [Said(one.outputs[0].text, tuple(one.outputs[0].token_ids), []) for one in outputs]
        self.new_tokens += sum(len(one.tokens) for one in said)
        return said

    def loads(self) -> dict[str, list[list[int]]]:
        """None: vLLM does not say which experts it used."""
        return {}

    def weigh(self, pairs: Sequence[Pair]) -> list[Weighed]:
        """How likely each continuation is: vLLM gives the log-probability and the rank of every token of a prompt. A
        text that is too long loses its start; one more token is generated and not looked at."""
        from vllm import SamplingParams

        texts = [[*pair.context, *pair.continuation][-(self.max_length - 1) :] for pair in pairs]
        outputs = self.llm.generate(
            [{"prompt_token_ids": text} for text in texts],
            SamplingParams(max_tokens=1, temperature=0.0, prompt_logprobs=1),
        )
        found = []
        for pair, one in zip(pairs, outputs, strict=True):
            places = one.prompt_logprobs[-len(pair.continuation) :]
            tokens = [place[token] for place, token in zip(places, pair.continuation, strict=True)]
            total = sum(token.logprob for token in tokens)
            found.append(Weighed(total, all(token.rank == 1 for token in tokens), []))
        return found
