"""Greedy generation by `olmoe_ft.model.generate` beside transformers' `generate`: the same weights, prompts, tokens."""

import gc
import statistics
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from batches import FIRST_ID
from measure import seconds
from rich.progress import track
from sides import OURS, STOCK, Case, networks

from olmoe_ft.model import OlmoeForCausalLM
from olmoe_ft.model.generate import generate

BATCHES = (1, 16, 64)
SHORTEST, LONGEST, NEW = 16, 128, 64  # tokens of a prompt, and behind it
PAD = 1
Tokens = list[list[int]]


def prompts(batch: int, vocabulary: int) -> Tokens:
    """Random tokens; lengths evenly from the shortest to the longest, one alone in their middle."""
    random = np.random.default_rng(0)
    lengths = np.linspace(SHORTEST, LONGEST, batch + 2)[1:-1] if batch == 1 else np.linspace(SHORTEST, LONGEST, batch)
    return [random.integers(FIRST_ID, vocabulary, round(length)).tolist() for length in lengths]


def stock(network: Any, asked: Sequence[Sequence[int]], new: int) -> Tokens:
    """As transformers' documentation has it: one left-padded batch. No token ends a row."""
    longest = max(map(len, asked))
    ids = [[PAD] * (longest - len(prompt)) + list(prompt) for prompt in asked]
    mask = [[0] * (longest - len(prompt)) + [1] * len(prompt) for prompt in asked]
    given = {"input_ids": torch.tensor(ids), "attention_mask": torch.tensor(mask)}
    options = {"max_new_tokens": new, "do_sample": False, "eos_token_id": None, "pad_token_id": PAD}
    on_device = {name: rows.to(network.device) for name, rows in given.items()}
    return network.generate(**on_device, **options)[:, longest:].tolist()


def ours(network: OlmoeForCausalLM, asked: Sequence[Sequence[int]], new: int) -> Tokens:
    return [each.tokens for each in generate(network, asked, max_new_tokens=[new] * len(asked), end_tokens=())]


def generation(sizes: Sequence[str], device: str, rounds: int) -> list[dict[str, Any]]:
    """A row for each size and batch: seconds of both sides in turn, medians of `rounds` or more after a first one.

    Raises:
        AssertionError: in fp32 a row's tokens differ between the sides.
    """
    found = []
    for size in sizes:
        case = Case("sft", False, size, LONGEST + NEW, 1, options={"use_cache": True})
        made = {name: network.eval() for name, network in networks((STOCK, OURS), case, device).items()}
        for batch in track(BATCHES, f"generation: {size}", transient=True):
            asked = prompts(batch, case.sizes["vocab_size"])
            sides = {STOCK: partial(stock, made[STOCK], asked, NEW), OURS: partial(ours, made[OURS], asked, NEW)}
            turns = 5 * rounds if size == "tiny" else rounds  # short ones vary more, and cost little
            found.append({"generation": f"{size}: {batch} row{'s' * (batch > 1)}", **take_turns(sides, device, turns)})
        del made
        gc.collect()
    return found


def take_turns(sides: dict[str, Callable[[], Tokens]], device: str, rounds: int) -> dict[str, str]:
    """The cells of both sides."""
    tokens: dict[str, Tokens] = {}
    times: dict[str, list[float]] = {name: [] for name in sides}

    def run(name: str) -> None:
        tokens[name] = sides[name]()

    for turn in range(rounds + 1):
        for name in list(sides) if turn % 2 else list(sides)[::-1]:
            times[name].append(seconds(partial(run, name), device))
    same = sum(theirs == own for theirs, own in zip(tokens[STOCK], tokens[OURS], strict=True))
    rows = len(tokens[OURS])
    assert device == "cuda" or same == rows, f"{rows - same} of {rows} rows have other tokens than stock's"
    taken = {name: statistics.median(each[1:]) for name, each in times.items()}
    new = sum(map(len, tokens[OURS]))
    ratios = [theirs / own for theirs, own in zip(times[STOCK][1:], times[OURS][1:], strict=True)]
    return {
        "stock s": f"{taken[STOCK]:.3f}",
        "ours s": f"{taken[OURS]:.3f}",
        "stock tokens/s": f"{new / taken[STOCK]:,.0f}",
        "our tokens/s": f"{new / taken[OURS]:,.0f}",
        "speed": f"{taken[STOCK] / taken[OURS]:.2f}x",
        "of a round": f"{min(ratios):.2f}x to {max(ratios):.2f}x",
        "same tokens": f"{same} of {rows}",
    }
