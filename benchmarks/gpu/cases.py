"""The benchmark's cases that a run has time for, the most telling first, and a trainer of ours on one of them."""

import gc

import torch
from sides import Case, Side, our_side

from gpu.part import Part
from olmoe_ft.model.experts.gradient_memory import GRADIENTS


def cases(part: Part) -> list[Case]:
    """The batch of the goals, 4 x 4,096 tokens; then short rows, where the host's time shows."""
    size, long, short, batch = ("tiny", 64, 32, 2) if part.dry else ("1b-7b", 4096, 512, 4)
    return [
        Case("sft", False, size, long, batch),
        Case("sft", True, size, long, batch),
        Case("dpo", True, size, long, batch),
        Case("dpo", False, size, long, batch),
        Case("sft", False, size, short, batch),
        Case("sft", True, size, short, batch),
    ]


def label(case: Case) -> str:
    return f"{case.name} {case.batch} x {case.length}"


def warm_side(part: Part, case: Case, steps: int) -> Side:
    """Our side after two steps, with batches for so many more."""
    side = our_side(case, steps + 2, part.device)
    for _ in range(2):
        side.next_step()
        side.forget()
    return side


def free(part: Part) -> None:
    """Give back what earlier cases have left, so that each finds the card empty."""
    GRADIENTS.release()
    gc.collect()
    if not part.dry:
        torch.cuda.empty_cache()
