"""Seconds of an optimizer step on a machine's GPUs, predicted from operations and bytes at assumed rates.

A step is the sum of its parts, as if nothing ran in parallel. Under DeepSpeed (0.19.8, read) little does: the stacked
experts of a layer, 93% of the released weights, are gathered or reduced two tensors at a time, and the network waits
for one before it sends the next. What is left out costs about the same for every shape: attention scores, clipping,
collation, waiting for a device with a longer micro-batch.
"""

from dataclasses import dataclass

from olmoe_ft.model import OlmoeConfig
from olmoe_ft.model.size import recomputed_flops_per_token
from olmoe_ft.planning.machine import Machine
from olmoe_ft.planning.memory import FP32
from olmoe_ft.planning.step_memory import StepMemory
from olmoe_ft.recipe import Recipe
from olmoe_ft.stages import Forwards, TrainerArguments
from olmoe_ft.training.performance import factors_per_token, flops_per_token

TFLOPS = (
    360.0  # 45% of the 798 that large bf16 products reach on an H100 (measured elsewhere): docs/performance.md's goal
)
LINK = 300.0  # GB/s between GPUs of one computer: two thirds of an H100's NVLink, 450 each way
NETWORK = 50.0  # GB/s between computers: one adapter of 400 Gb/s in each, which a ring crosses once


@dataclass(frozen=True)
class Rates:
    """The speed that each device is assumed to reach. None of it is measured here."""

    flops: float = TFLOPS * 1e12
    """Operations per second of forward and backward."""
    link: float = LINK * 1e9
    """Bytes per second to and from other devices of the same computer."""
    network: float = NETWORK * 1e9
    """The same between several computers."""
    memory: float = 2.6e12
    """Bytes per second of the device's memory: 78% of an H100's 3.35e12."""
    host: float = 25e9
    """Bytes per second to and from the host (PCIe 4.0 x16), and a device's share of the host's memory bandwidth."""

    @classmethod
    def of(cls, tflops: float | None, bandwidth: float | None) -> "Rates":
        """Rates that a user gives: TFLOP/s, and GB/s to other devices, wherever they are; None for the assumed ones."""
        between = (LINK, NETWORK) if bandwidth is None else (bandwidth, bandwidth)
        return cls((tflops or TFLOPS) * 1e12, *(rate * 1e9 for rate in between))

    def between(self, machine: Machine) -> float:
        """Bytes per second between the devices of a machine."""
        return self.link if machine.nodes == 1 else self.network


@dataclass(frozen=True)
class Work:
    """What one device computes in an optimizer step."""

    tokens: float
    """Tokens of a micro-batch, with padding; a shared prompt counts once."""
    micro_batches: int
    flops: int
    """Operations per token, forward and backward, with the passes that are forward alone."""
    recomputed: int
    """Operations per token that checkpointing adds."""
    forwards: Forwards
    """The passes of a micro-batch that are forward alone."""


@dataclass(frozen=True)
class StepTime:
    """Seconds of an optimizer step, and the tokens that all devices compute in it."""

    compute: float
    traffic: float
    optimizer: float
    tokens: float

    @property
    def seconds(self) -> float:
        return self.compute + self.traffic + self.optimizer

    @property
    def tokens_per_second(self) -> float:
        """Of all devices; it can be compared between shapes with different numbers of tokens per step."""
        return self.tokens / self.seconds


def work_of(recipe: Recipe, config: OlmoeConfig, arguments: TrainerArguments, tokens: float) -> Work:
    """The work of a recipe with so many tokens in a micro-batch."""
    return Work(
        tokens,
        arguments.gradient_accumulation_steps,
        flops_per_token(recipe, config, arguments),
        recomputed_flops_per_token(config, factors_per_token(recipe, config) or 0),
        recipe.kind.forwards(arguments),
    )


def step_time(step: StepMemory, machine: Machine, work: Work, rates: Rates) -> StepTime:
    """The time of a step on a machine of GPUs."""
    per_token = work.flops + (work.recomputed if step.recomputes else 0)
    sent = traffic(step, machine, work) / rates.between(machine)
    offloaded = host_traffic(step, machine, work) / rates.host
    optimizer = rates.host if machine.offload_optimizer else rates.memory
    return StepTime(
        compute=work.micro_batches * work.tokens * per_token / rates.flops,
        traffic=sent + offloaded,
        optimizer=optimizer_bytes(step, machine) / optimizer,
        tokens=work.micro_batches * work.tokens * machine.processes,
    )


def traffic(step: StepMemory, machine: Machine, work: Work) -> float:
    """Bytes that the busiest device sends to others in an optimizer step, by rings; gradients in the weights' dtype.

    With weights W, of the reference R, gradients G of what is trained, N devices and M micro-batches:

        data parallel:  2 G (N - 1) / N                          all-reduce, once
        ZeRO-2:         M 2 G (N - 1) / N + G (N - 1) / N        the same for every micro-batch, then trained weights
                        M G + G (N - 1) / N                      if a gradient goes to its owner alone (`to_owner`)
        ZeRO-3:         M (2 W + F + G) (N - 1) / N              W for forward and backward, G scattered

    where F is W for every pass of the policy that is forward alone, and R for every pass of the reference.

    ZeRO-1 is ZeRO-2 with M = 1. Layers that are recomputed stay gathered for their backward pass, so checkpointing adds
    no traffic (DeepSpeed's `stage3_max_reuse_distance`, 10^9 weights, is more than two layers).
    """
    if machine.processes == 1:
        return 0.0
    others = 1 - 1 / machine.processes
    gradients = step.itemsize * step.trained
    if machine.stage == 3:
        return work.micro_batches * (_gathered(step, work) + gradients) * others
    reduced = gradients if machine.to_owner and machine.stage else 2 * gradients * others
    if machine.stage == 0:
        return reduced
    return (work.micro_batches if machine.stage == 2 else 1) * reduced + gradients * others


def host_traffic(step: StepMemory, machine: Machine, work: Work) -> float:
    """Bytes between a device and its host: its share of gradients out and of weights in."""
    moved = 0
    if machine.offload_optimizer:
        moved += (work.micro_batches + 1) * step.itemsize * step.trained
    if machine.offload_weights:
        moved += work.micro_batches * _gathered(step, work)
    return moved / machine.processes


def optimizer_bytes(step: StepMemory, machine: Machine) -> float:
    """Bytes that an update of a device's share reads and writes.

    Unsharded: weights and states are read and written, gradients are read; 14 bytes per weight for AdamW in bf16. Under
    ZeRO: fp32 copies and moments are read and written, gradients are read, then written and read in fp32, and weights
    are written.
    """
    if machine.stage == 0:
        return 2 * step.itemsize * step.trained + step.gradients + 2 * step.optimizer
    states = 2 * FP32 * (step.trained + step.moments)
    return (states + 2 * (step.itemsize + FP32) * step.trained) / machine.processes


def _gathered(step: StepMemory, work: Work) -> int:
    """Bytes of weights that ZeRO-3 gathers for a micro-batch. A reference without its own weights is the policy."""
    weights = step.weights + step.adapters
    return (2 + work.forwards.policy) * weights + work.forwards.reference * (step.reference or weights)
