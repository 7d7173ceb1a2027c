"""This project beside the stock stack: seconds, memory and loss of training steps, on the same weights and batches.

    python benchmarks/speed.py                       everything this machine is for (`make bench`)
    python benchmarks/speed.py --lengths 512,1024    a part of it; the other lines of the results stay
    python benchmarks/speed.py --parts generation    one of its tables: steps, growth or generation
    python benchmarks/speed.py --render              only write the table of docs/performance.md from the results

A step is what a training loop does for one batch: collate, forward, backward. Stock is TRL's trainer on transformers'
network with grouped experts (and PEFT's adapters), with packing, its fused head, and FlashAttention or SDPA; ours is
`olmoe_ft.training.trainers`. Both run in this process and take turns, swapping places each round; shown are medians.
On a GPU without FlashAttention stock runs SFT a second time, with our attention.
"""

import gc
import math
import os
import statistics
import warnings
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Annotated, TypeVar

import numpy as np
import torch
import typer
from generation import generation
from growth import growth
from measure import seconds
from rich.console import Console
from rich.progress import Progress
from sides import BETA, OURS, SIZES, Case, both_sides, names_of, operations
from speed_report import Line, Results, print_table, write_document

from olmoe_ft.environment import set_up
from olmoe_ft.training.performance import matrix_rate

PARTS = ("steps", "growth", "generation")
SIZES_FOR = {"cpu": ("tiny", "mid"), "cuda": ("1b-7b",)}
LENGTHS = {"tiny": (512, 1024, 4096, 16384), "mid": (512, 1024, 4096), "1b-7b": (512, 1024, 4096, 16384)}
# packed rows, pairs or judged rows of a step: what keeps a CPU's within a minute, and the batch of a GPU's goals
BATCHES = {"cpu": {"sft": 1, "dpo": 2, "kto": 4}, "cuda": {"sft": 4, "dpo": 4, "kto": 8}}
SAME = {"cpu": 1e-4, "cuda": 2e-2}  # relative difference of both sides' losses, fp32 and bf16
Number = TypeVar("Number", int, float)


def batch_of(stage: str, length: int, device: str) -> int:
    return 1 if device == "cpu" and length > 8192 else BATCHES[device][stage]


def allowed(case: Case, device: str) -> float:
    """How far the losses may differ, relatively.

    TRL adds an answer's log-probabilities up in fp32. A DPO loss has four such sums, each right to a last bit that
    grows with the answer, in -log sigmoid(beta x), a KTO loss as many in sigmoid(beta x): its relative error is at most
    beta times theirs.
    """
    if case.stage == "sft":
        return SAME[device]
    longest = np.float32(case.length * math.log(case.sizes["vocab_size"]))  # nats, of random tokens
    return max(SAME[device], 4 * BETA * float(np.spacing(longest)))


def cases(sizes: list[str], lengths: list[int], stages: list[str], kinds: list[str], device: str) -> list[Case]:
    return [
        Case(stage, lora, size, length, batch_of(stage, length, device))
        for size in sizes
        for stage in stages
        for lora in (False, True)
        if ("lora" if lora else "full") in kinds
        for length in lengths or LENGTHS[size]
    ]


def measure(case: Case, rounds: int, device: str, rate: float, progress: Progress) -> list[Line]:
    """The case's line; and if a side ran out of a GPU's memory, a second one, with checkpointing on all sides.

    Raises:
        AssertionError: the losses of the sides differ.
    """
    if case.size == "tiny" and case.length <= 1024:
        rounds *= 5  # a step of a twentieth of a second varies more, and costs little
    lines = [take_turns(case, rounds, device, rate, progress)]
    if len(lines[0].seconds) < len(lines[0].sides):
        lines.append(take_turns(replace(case, checkpointing=True), rounds, device, rate, progress))
    return lines


def take_turns(case: Case, rounds: int, device: str, rate: float, progress: Progress) -> Line:
    """Steps of all sides in turn, on the same batches. A side that runs out of memory has no time and no peak."""
    task = progress.add_task(f"{case.name} {case.size} {case.length:,}", total=rounds + 2)
    sides = both_sides(case, rounds + 2, device)
    times: dict[str, list[float]] = {name: [] for name in sides}
    tokens: list[int] = []
    difference = 0.0
    losses: dict[str, torch.Tensor] = {}

    def step(name: str) -> None:
        losses[name] = sides[name].next_step()

    for turn in range(rounds + 1):  # the first one warms up
        for name in list(sides) if turn % 2 else list(sides)[::-1]:
            if (taken := if_it_fits(partial(seconds, partial(step, name), device))) is None:
                sides.pop(name).forget()
                continue
            times[name].append(taken)
            sides[name].forget()
        if OURS in sides:
            tokens.append(sides[OURS].tokens)
            for theirs in (losses[name].item() for name in sides if name != OURS):
                difference = max(difference, abs(theirs - losses[OURS].item()) / abs(theirs))
        progress.advance(task)
    assert difference < allowed(case, device), f"{case}: the losses differ by {difference:.1e}"
    found = {name: if_it_fits(partial(side.peak, device)) for name, side in sides.items()}
    progress.remove_task(task)
    peaks = {name: peak for name, peak in found.items() if peak is not None}
    medians = {name: statistics.median(times[name][1:]) for name in peaks}
    floor = operations(case, 1) * statistics.median(tokens[1:]) / rate if OURS in peaks else 0.0
    return Line.of(case, medians, peaks, floor, difference, names_of(case, device))


def if_it_fits(work: Callable[[], Number]) -> Number | None:
    """What `work` returns, or None if a GPU's memory does not suffice for it."""
    try:
        return work()
    except torch.OutOfMemoryError:
        pass  # the error holds on to what was allocated until it is forgotten
    gc.collect()
    torch.cuda.empty_cache()
    return None


def main(
    sizes: Annotated[str, typer.Option(help=f"Of {', '.join(SIZES)}; by default what the device is for.")] = "",
    lengths: Annotated[str, typer.Option(help="Tokens of a packed row, and the longest side of a pair.")] = "",
    stages: Annotated[str, typer.Option(help="Of sft, dpo and kto.")] = "sft,dpo,kto",
    kinds: Annotated[str, typer.Option(help="full, lora or both.")] = "full,lora",
    rounds: Annotated[int, typer.Option(help="Measured steps of each side; medians are shown.")] = 5,
    parts: Annotated[str, typer.Option(help=f"Of {', '.join(PARTS)}.")] = ",".join(PARTS),
    render: Annotated[bool, typer.Option(help="Measure nothing; write the table of docs/performance.md.")] = False,
) -> None:
    if render:
        write_document()
        return
    set_up()
    os.environ["KINETO_LOG_LEVEL"] = "99"  # the profiler announces itself otherwise
    warnings.filterwarnings("ignore", category=FutureWarning)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    console = Console(width=160)
    chosen = sizes.split(",") if sizes else list(SIZES_FOR[device])
    wanted = [int(length) for length in lengths.split(",") if length]
    todo = parts.split(",")
    rate = None
    if "steps" in todo:
        rate = matrix_rate(torch.device(device), torch.bfloat16 if device == "cuda" else torch.float32)
    results = Results.here(device, rate)
    if "steps" in todo:
        with Progress(console=console, transient=True) as progress:
            asked = cases(chosen, wanted, stages.split(","), kinds.split(","), device)
            for case in progress.track(asked, description="cases"):
                results.put(measure(case, rounds, device, results.rate, progress))
                results.write()  # what is measured stays, should a later case fail
                gc.collect()
        print_table(results, console)
    if "growth" in todo:
        results.growth = growth(device, rounds)
        results.write()
    if "generation" in todo:
        results.put_generation(generation(chosen, device, rounds))
        results.write()
    write_document()


if __name__ == "__main__":
    typer.run(main)
