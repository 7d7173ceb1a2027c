"""What the speed table trains on: random tokens in rows and pairs whose lengths are like those of real data."""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from datasets import Dataset

FIRST_ID = 4  # below stand special tokens

Stage = Literal["sft", "dpo", "kto"]


@dataclass(frozen=True)
class Lengths:
    """A log-normal distribution of token counts."""

    median: float
    sigma: float

    def draw(self, random: np.random.Generator, low: int, high: int, unit: int = 1) -> int:
        return int(np.clip(unit * random.lognormal(np.log(self.median), self.sigma), low, high))


# Conversations with a median of 300 tokens, a third of them the prompt's, and cut at the row's length.
CONVERSATION, PROMPT_SHARE = Lengths(300, 0.9), 1 / 3
# Pairs grow with the row: in 150 real pairs (ShareGPT preferences, OLMoE's tokenizer) the prompt's median is 234 tokens
# and an answer's 282 (chosen) and 339 (rejected), which are 1/9 and 1/7 of the 2,048 they are trained with.
PROMPT, ANSWER = Lengths(1 / 9, 1.2), Lengths(1 / 7, 1.0)


def rows(stage: Stage, length: int, count: int, vocabulary: int) -> Dataset:
    """Token ids as both sides' trainers take them: pairs, judged answers, or conversations that fill as many packs of
    `length`."""
    random = np.random.default_rng(0)
    if stage == "dpo":
        return Dataset.from_list([pair(random, length, vocabulary) for _ in range(count)])
    if stage == "kto":
        return Dataset.from_list(judged(random, length, vocabulary, count))
    made, tokens = [], 0
    while tokens < count * length * 1.1:  # a tenth more, since no pack is quite full
        made.append(conversation(random, length, vocabulary))
        tokens += len(made[-1]["input_ids"])
    return Dataset.from_list(made)


def conversation(random: np.random.Generator, length: int, vocabulary: int) -> dict[str, list[int]]:
    size = CONVERSATION.draw(random, 16, length)
    ids = random.integers(FIRST_ID, vocabulary, size).tolist()
    prompt = round(size * PROMPT_SHARE)
    return {"input_ids": ids, "labels": [-100] * prompt + ids[prompt:]}


def pair(random: np.random.Generator, length: int, vocabulary: int) -> dict[str, list[int]]:
    prompt = PROMPT.draw(random, 8, length // 2, unit=length)
    chosen, rejected = (ANSWER.draw(random, 4, length - prompt, unit=length) for _ in range(2))
    sizes = {"prompt_ids": prompt, "chosen_ids": chosen, "rejected_ids": rejected}
    return {name: random.integers(FIRST_ID, vocabulary, size).tolist() for name, size in sizes.items()}


def judged(random: np.random.Generator, length: int, vocabulary: int, count: int) -> list[dict[str, Any]]:
    """The prompts and chosen answers of pairs, judged in turn, beside each the answer of the row before it."""
    pairs = [pair(random, length, vocabulary) for _ in range(count)]
    return [
        {
            "prompt_ids": one["prompt_ids"],
            "completion_ids": one["chosen_ids"],
            "KL_completion_ids": pairs[number - 1]["chosen_ids"],
            "label": number % 2 == 0,
        }
        for number, one in enumerate(pairs)
    ]
