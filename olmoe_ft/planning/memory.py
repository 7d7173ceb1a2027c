"""The memory of each device, part by part, from the step of one device and how the machine shards it."""

from dataclasses import dataclass

from olmoe_ft.constants import GIB
from olmoe_ft.planning.machine import Machine
from olmoe_ft.planning.step_memory import StepMemory

RESERVE = GIB
FP32 = 4


@dataclass(frozen=True)
class DeviceMemory:
    """Bytes on one device. Each part is at its own maximum; these are not at the same moment, so `peak` is less than
    their sum."""

    weights: int
    adapters: int
    gradients: int
    optimizer: int
    reference: int
    gather: int
    """ZeRO-3's gathered weights and its buffers for them; ZeRO-2's buffers for reducing gradients; DDP's buckets."""
    working: int
    """Activations, temporary results, and logits or the tiles of the fused head."""
    working_otherwise: int
    """`working` with the opposite setting of gradient checkpointing."""
    evaluation: int
    """The weights that are loaded again between two steps to be evaluated, and their caches."""
    head: int
    """The head's part of `working`."""
    peak: int
    host: int
    """Bytes in host memory, for this device."""

    def fits(self, budget: float) -> bool:
        """Whether it fits on a device of so many GiB, with a reserve for the driver, libraries and fragmentation."""
        return self.peak + RESERVE <= budget * GIB


def device_memory(step: StepMemory, machine: Machine, accumulates: bool) -> DeviceMemory:
    """The memory that one of a machine's devices needs.

    Unsharded, it is what the step on fake tensors had alive. Under DeepSpeed (0.19.8, read and measured) ZeRO-2 keeps
    the weights W whole and shards the fp32 copies and moments O and the gradients G. ZeRO-3 shards W too and gathers
    layers as they are used. O is in fp32. With working memory A, and g for G in fp32, made for the step:

        ZeRO-2:  W + O + max(A + buckets or the largest gradient + (G, if micro-batches accumulate), G + g)
        ZeRO-3:  W + O + G + max(A + gathered weights + layers being gathered + bucket, g)

    Two layers are being gathered if weights are gathered again in the backward pass: with checkpointing, or if not
    all may stay. On a CPU a layer's gradients come on top of A.

    Between two steps, what is evaluated comes on top of what stays: weights, O and, under DeepSpeed, G.

    ZeRO-1 keeps all gradients on every device. Offloading moves O, G and g, or W and the reference, to the host.

    Args:
        accumulates: whether a step has more than one micro-batch.
    """
    if machine.stage == 0:
        buckets = step.itemsize * step.trained if machine.processes > 1 else 0
        between = step.weights + step.adapters + step.optimizer + step.reference + step.evaluation
        return DeviceMemory(
            step.weights, step.adapters, step.gradients, step.optimizer, step.reference, buckets,
            **_working(step), peak=max(step.peak, between) + buckets, host=0,
        )  # fmt: skip
    shards = machine.processes
    optimizer = FP32 * (step.trained + step.moments) // shards
    gradients = FP32 * step.trained // (1 if machine.stage == 1 else shards)  # configs/deepspeed: grad_accum_dtype
    fp32_gradients = FP32 * step.trained // shards
    all_weights = step.weights + step.adapters
    sharded = machine.stage == 3
    weights, adapters, reference = (
        part // shards if sharded else part for part in (step.weights, step.adapters, step.reference)
    )
    host = 0
    if machine.offload_optimizer:
        host += optimizer + gradients + fp32_gradients
        optimizer = gradients = fp32_gradients = 0
    if machine.offload_weights:
        host += weights + adapters + reference
        weights = adapters = reference = 0
    still = weights + adapters + reference + optimizer
    if sharded:
        live = machine.live * step.itemsize
        on_their_way = 2 if step.recomputes or all_weights > live else 0
        gather = min(all_weights, live) + on_their_way * step.largest_layer + machine.bucket * step.itemsize
        peak = still + gradients + max(step.working + gather + step.kept, fp32_gradients)
    else:
        # two buffers and a flat copy of one; or a copy of a gradient that is larger than a buffer
        gather = max(3 * min(machine.bucket, step.trained) * step.itemsize, step.largest_gradient)
        partial = gradients if machine.stage == 1 or accumulates else 0
        peak = still + max(step.working + partial + gather + step.kept, gradients + fp32_gradients)
    return DeviceMemory(
        weights, adapters, gradients, optimizer, reference, gather, **_working(step),
        peak=max(peak, still + gradients + step.evaluation), host=host,
    )  # fmt: skip


def _working(step: StepMemory) -> dict[str, int]:
    names = ("working", "working_otherwise", "evaluation", "head")
    return {name: getattr(step, name) for name in names}
