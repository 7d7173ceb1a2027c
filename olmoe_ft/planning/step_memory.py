"""What a step keeps in memory, part by part."""

from collections.abc import Iterable
from dataclasses import dataclass, replace

from torch import Tensor, nn

from olmoe_ft.checkpoints.peft_names import is_factor, plain_name
from olmoe_ft.model.names import ATTENTION_PROJECTIONS, STACKS

NF4_BITS = 4.127  # of a weight, with its scales quantised too (Dettmers et al. 2023, section 3)


@dataclass(frozen=True)
class StepMemory:
    """Bytes on one device that keeps everything."""

    weights: int
    """All weights of the model that is trained, without adapters."""
    adapters: int
    trained: int
    """Parameters (not bytes) that are trained."""
    itemsize: int
    """Bytes of a weight."""
    largest_layer: int
    """Bytes of the largest group that ZeRO-3 gathers at once: a decoder layer."""
    largest_gradient: int
    """Bytes of the largest weight that is trained."""
    gradients: int
    optimizer: int
    moments: int
    """Elements of the optimizer's states."""
    reference: int
    """Weights of the frozen reference model, where it is a model of its own."""
    working: int
    """The most that forward and backward hold beside weights, gradients and optimizer states: activations, logits or
    the fused head's tiles, temporary results."""
    working_otherwise: int
    """The same without gradient checkpointing where the recipe has it, and with it where it has not."""
    recomputes: bool
    """Whether `working` is with gradient checkpointing."""
    kept: int
    """Gradients of a layer whose memory a CPU keeps for the next ones (`model/experts/gradient_memory.py`)."""
    evaluation: int
    """The whole weights that are loaded to be evaluated between two steps, beside those in training, and caches."""
    head: int
    """The part of `working` that the head needs, at its highest."""
    peak: int
    """The most that is alive at once in a whole step."""
    peak_otherwise: int
    """The same with checkpointing the other way, as `working_otherwise`."""

    def otherwise(self) -> "StepMemory":
        """The step with gradient checkpointing where it has none, and without where it has."""
        return replace(
            self,
            working=self.working_otherwise,
            working_otherwise=self.working,
            recomputes=not self.recomputes,
            peak=self.peak_otherwise,
            peak_otherwise=self.peak,
        )


def packed_base(memory: StepMemory, policy: nn.Module) -> StepMemory:
    """With the frozen weights of attention and experts in 4 bit; one stack at a time is unpacked for its product."""
    names = (*STACKS, *ATTENTION_PROJECTIONS)
    base = [(plain_name(name), weight) for name, weight in policy.named_parameters() if not is_factor(name)]
    packed = [weight for name, weight in base if any(part in names for part in name.split("."))]
    saved = total_bytes(packed) - int(sum(weight.numel() for weight in packed) * NF4_BITS / 8)
    unpacked = max(weight.nbytes for weight in packed)
    return replace(
        memory,
        weights=memory.weights - saved,
        working=memory.working + unpacked,
        working_otherwise=memory.working_otherwise + unpacked,
        peak=memory.peak - saved + unpacked,
        peak_otherwise=memory.peak_otherwise - saved + unpacked,
    )


def total_bytes(tensors: Iterable[Tensor]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)
