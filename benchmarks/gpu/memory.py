"""Predicted beside measured memory: what `olmoe-ft plan` says a step takes at its highest, and what it took.

A step here has the optimizer in it, so that full fine-tuning of all layers on one card is seen to fit or not to.
"""

from typing import Any

import torch
from measure import peak_bytes
from sides import Case, Side, our_side
from speed_report import Results

from gpu.cases import cases, free, label
from gpu.part import Part
from olmoe_ft.model import OlmoeConfig
from olmoe_ft.planning.machine import Machine
from olmoe_ft.planning.measured_step import Batch, measure_step
from olmoe_ft.planning.memory import device_memory
from olmoe_ft.recipe import Recipe, load_recipe
from olmoe_ft.training.performance import matrix_rate

RECIPES = "recipes/olmoe-1b-7b-0924"
MIB = 2**20
NEAR = 0.1  # how far the prediction may be off, of what was measured


def run(part: Part) -> None:
    rows: list[dict[str, Any]] = []
    for case in cases(part)[:3]:  # not full DPO, whose reference is a second network
        part.attempt(label(case), lambda case=case: rows.append(beside(part, case)), needs=10)
        free(part)
    if rows and not part.dry:
        results = Results.here(part.device, matrix_rate(torch.device(part.device), torch.bfloat16))
        results.memory = rows
        results.write()


def beside(part: Part, case: Case) -> dict[str, Any]:
    side = our_side(case, 3, part.device)
    measured, batch = measure_peak(part, case, side)
    predicted = predict(part, case, side, batch)
    ratio = predicted / measured
    figures = {"predicted_mib": round(predicted / MIB), "measured_mib": round(measured / MIB), "ratio": round(ratio, 3)}
    part.report(label(case), None if part.dry else abs(ratio - 1) <= NEAR, **figures)
    return {
        "step with the optimizer": label(case),
        "predicted MiB": f"{predicted / MIB:,.0f}",
        "measured MiB": f"{measured / MIB:,.0f}",
        "predicted / measured": f"{ratio:.2f}",
    }


def measure_peak(part: Part, case: Case, side: Side) -> tuple[int, Batch]:
    """Bytes at the highest point of a step that finds the optimizer's states there, and that step's batch."""
    optimizer = side.trainer.create_optimizer()

    def step() -> None:
        side.next_step()
        optimizer.step()
        side.forget()

    step()  # makes the states
    free(part)
    standing = torch.cuda.memory_allocated() if not part.dry else standing_bytes(side, optimizer)
    above = peak_bytes(step, part.device)
    if case.stage == "sft":
        return standing + above, Batch(case.batch, side.tokens // case.batch, packed=True)
    return standing + above, Batch(case.batch, case.length, laid=side.tokens // case.batch)


def standing_bytes(side: Side, optimizer: torch.optim.Optimizer) -> int:
    """Weights and the optimizer's states, where no allocator counts them."""
    tensors = list(side.trainer.model.parameters())
    tensors += [value for state in optimizer.state.values() for value in state.values() if torch.is_tensor(value)]
    return sum(tensor.nbytes for tensor in tensors)


def predict(part: Part, case: Case, side: Side, batch: Batch) -> int:
    step = measure_step(recipe_of(part, case), OlmoeConfig(**case.sizes), side.trainer.args, batch, gpu=not part.dry)
    return device_memory(step, Machine("one device", 1, gpu=not part.dry), accumulates=False).peak


def recipe_of(part: Part, case: Case) -> Recipe:
    """The published recipe of the case, with the router losses that the benchmark has."""
    dtype = "float32" if part.dry else "bfloat16"
    coefficient = 0.01 if case.stage == "sft" else 0.0
    changed = [f"model.dtype={dtype}", f"router.load_balancing_coef={coefficient}", "router.train=full"]
    return load_recipe(f"{RECIPES}/{case.stage}/{'lora' if case.lora else 'full'}.yaml", changed)
