"""How fast a run is: tokens per second, share of the device's matrix rate, peak memory."""

import resource
import time
from functools import cache
from typing import Any

import torch
from transformers import TrainerCallback

from olmoe_ft.constants import GIB
from olmoe_ft.model import OlmoeConfig
from olmoe_ft.model.size import adapter_parameters_per_token, training_flops_per_token
from olmoe_ft.recipe import Recipe
from olmoe_ft.stages import TrainerArguments


@cache
def matrix_rate(device: torch.device, dtype: torch.dtype) -> float:
    """FLOP/s of a large square matrix product on this device in this dtype, measured once in a process: the best of
    five, or of as many as take a second (a CPU that has no instructions for bf16 takes seconds for one)."""
    size = 8192 if device.type == "cuda" else 1024
    own = torch.Generator(device)  # training goes on to draw the same numbers whether this was measured before or not
    left, right = (torch.randn(size, size, device=device, dtype=dtype, generator=own) for _ in range(2))
    best, spent = float("inf"), 0.0
    for _ in range(6):  # the first warms up
        _synchronise(device)
        start = time.perf_counter()
        torch.mm(left, right)
        _synchronise(device)
        taken = time.perf_counter() - start
        best, spent = min(best, taken), spent + taken
        if spent > 1:
            break
    return 2 * size**3 / best


def factors_per_token(recipe: Recipe, config: OlmoeConfig) -> int | None:
    """Weights of adapters a token is multiplied with; None where all weights are trained."""
    lora = recipe.lora
    return None if lora is None else adapter_parameters_per_token(config, lora.r, lora.attention, lora.experts)


def flops_per_token(recipe: Recipe, config: OlmoeConfig, arguments: TrainerArguments) -> int:
    """FLOPs of a token in a step, with the passes of its stage that are forward alone."""
    forwards = recipe.kind.forwards(arguments)
    factors = factors_per_token(recipe, config)
    return training_flops_per_token(config, factors, forwards.policy, forwards.reference)


def peak_memory_gib(device: torch.device) -> float:
    """Largest memory so far, in GiB: of the CUDA allocator, or of the whole process on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / GIB
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / GIB


class Work:
    """How many places of this process's batches the network worked through since the last record."""

    def __init__(self) -> None:
        self.places, self.computed = 0, 0

    def add(self, seen: dict[str, Any]) -> None:
        """A batch as the network saw it; only shapes are looked at."""
        computed = seen["input_ids"].numel()
        self.computed += computed
        self.places += seen["key_places"].numel() if "key_places" in seen else computed  # prompts once for each answer


class PerformanceCallback(TrainerCallback):
    """Adds `perf/…` to every record of training steps; before the callbacks that write records (`callback_order`).

    Time spent in evaluation and in saving is not counted; waiting for data is. `perf/mfu` counts the matrix products
    of the weights a token uses and no attention scores, a shared prompt once, against the matrix rate measured when the
    run started; those of passes without gradient too, which see about as many tokens. `perf/padding` is the share of
    places that held no token.

    Args:
        flops_per_token: of a step.
        work: what the trainer counts; begun anew with every record.
    """

    def __init__(
        self, flops_per_token: int, device: torch.device, dtype: torch.dtype, processes: int, work: Work
    ) -> None:
        self.flops_per_token, self.device = flops_per_token, device
        self.processes, self.work = processes, work
        self.rate = matrix_rate(device, dtype) * processes  # FLOP/s of all processes together
        self.tokens, self.seconds = 0.0, 0.0
        self.mark = time.perf_counter()

    def carried(self) -> dict[str, Any]:
        return {"tokens": self.tokens, "seconds": self.seconds}

    def carry_on(self, kept: dict[str, Any], same_shape: bool) -> None:
        self.tokens = kept["tokens"]
        self.seconds = kept["seconds"] if same_shape else 0.0

    def on_train_begin(self, args, state, control, **kwargs):
        self.leave_out_time()

    def on_step_end(self, args, state, control, **kwargs):
        now = time.perf_counter()
        self.seconds, self.mark = self.seconds + now - self.mark, now

    def on_save(self, args, state, control, **kwargs):
        self.leave_out_time()

    def on_evaluate(self, args, state, control, **kwargs):
        self.leave_out_time()

    def leave_out_time(self) -> None:
        """Time since the last step is no time of the next one."""
        self.mark = time.perf_counter()

    def on_log(self, args, state, control, logs=None, **kwargs):
        if "loss" not in logs:
            return
        tokens = logs["num_tokens"] - self.tokens
        tokens_per_second = tokens / max(self.seconds, 1e-9)
        self.tokens, self.seconds = logs["num_tokens"], 0.0
        logs["perf/tokens_per_second"] = tokens_per_second
        once = self.work.computed / max(self.work.places, 1)
        logs["perf/mfu"] = tokens_per_second * once * self.flops_per_token / self.rate
        logs["perf/padding"] = max(0.0, 1 - tokens / max(self.work.places * self.processes, 1))
        self.work.places = self.work.computed = 0
        logs["perf/peak_memory_gib"] = peak_memory_gib(self.device)


def _synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
