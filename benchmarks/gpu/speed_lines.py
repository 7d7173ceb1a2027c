"""The benchmark's lines of this card, as `make bench` measures them, as many as there is time for."""

import torch
from rich.console import Console
from rich.progress import Progress
from sides import EQUAL, OURS, STOCK, Case
from speed import measure
from speed_report import Line, Results

from gpu.cases import cases, free, label
from gpu.part import Part
from olmoe_ft.training.performance import matrix_rate

ROUNDS = 3
SHORT = {STOCK: "stock", EQUAL: "equal", OURS: "ours"}
NEEDS = 25  # seconds of a case: both networks, and as often as not once more with checkpointing


def run(part: Part) -> None:
    dtype = torch.float32 if part.dry else torch.bfloat16
    rate = matrix_rate(torch.device(part.device), dtype)
    part.report("matrix products", None, tflops=round(rate / 1e12, 1))
    results = Results.here(part.device, rate)
    for case in cases(part):
        part.attempt(label(case), lambda case=case: _measure(part, case, results), needs=NEEDS)
        free(part)


def _measure(part: Part, case: Case, results: Results) -> None:
    with Progress(console=Console(stderr=True), disable=True) as progress:
        lines = measure(case, ROUNDS, part.device, results.rate, progress)
    for line in lines:
        part.report(label(case), True, **figures(line))  # that the losses are the same, `measure` has seen to
    if not part.dry:
        results.put(lines)
        results.write()


def figures(line: Line) -> dict[str, object]:
    """Milliseconds and MiB of each side, and how many times as long as ours the others take."""
    found: dict[str, object] = {"checkpointing": line.checkpointing, "losses_differ": line.difference}
    for side in line.sides:
        name = SHORT[side]
        if side not in line.seconds:
            found[name] = "out of memory"
            continue
        found[f"{name}_ms"] = round(1e3 * line.seconds[side], 1)
        found[f"{name}_mib"] = round(line.peak[side] / 2**20)
        if OURS in line.seconds and side != OURS:
            found[f"{name}_over_ours"] = round(line.seconds[side] / line.seconds[OURS], 2)
    if OURS in line.seconds:
        found["mfu"] = round(line.floor / line.seconds[OURS], 3)
    return found
