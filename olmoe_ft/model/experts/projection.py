"""One stack of expert weights with its adapters: its products forward, and the gradients backward.

With adapters the weight is `W + sum s B A`. B is `s B` already (`autograd.adapters_in`).

Shapes: E experts, r rank, n rows of a block (all R, or those of one expert); `in` and `out` are H and 2I for `gate_up`,
I and H for `down`.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

from torch import Tensor

from olmoe_ft.model.experts.gradient_memory import GRADIENTS
from olmoe_ft.model.experts.matmul import Block, Strategy


class Stack:
    """E matrices in one tensor, and its gradient where one is asked for."""

    def __init__(self, matrices: Any, wants_gradient: bool = False) -> None:
        """`matrices` is (E, out, in): a tensor, or weights in 4 bit, which have `dequantize`."""
        self.matrices, self.wants_gradient = matrices, wants_gradient
        self.gradient: Tensor | None = None

    @property
    def unpacked(self) -> Tensor:
        return self.matrices if isinstance(self.matrices, Tensor) else self.matrices.dequantize()

    def take_gradient(self, block: Block, to_outputs: Tensor, inputs: Tensor) -> None:
        """Of the block's experts, from the gradient of what came out (n, out) and what went in (n, in)."""
        self.gradient = block.weight_gradient(to_outputs, inputs, self.gradient)


class Adapter(NamedTuple):
    """The two factors of LoRA."""

    b: Stack  # (E, out, r)
    a: Stack  # (E, r, in)


class Projection:
    """A stack of weights and the adapters on it."""

    def __init__(self, weight: Any, factors: Sequence[Tensor], wants_gradients: Sequence[bool] | None = None) -> None:
        """A projection of tensors as autograd functions get them.

        Args:
            weight: (E, out, in), or its packed form.
            factors: B (E, out, r) and A (E, r, in) of each adapter, in turn.
            wants_gradients: of the weight and of each factor, in this order; None: of none.
        """
        wants = wants_gradients or [False] * (1 + len(factors))
        self.weight, *stacks = [Stack(matrices, each) for matrices, each in zip((weight, *factors), wants, strict=True)]
        self.adapters = [Adapter(b, a) for b, a in zip(stacks[::2], stacks[1::2], strict=True)]
        self.width = weight.shape[1]

    @property
    def stacks(self) -> list[Stack]:
        """The weight, then B and A of each adapter."""
        return [self.weight, *(factor for adapter in self.adapters for factor in adapter)]

    @property
    def is_trained(self) -> bool:
        return any(stack.wants_gradient for stack in self.stacks)

    def prepare(self, strategy: Strategy) -> None:
        """Where experts are multiplied one by one: the weight unpacked once for all, room for all their gradients."""
        if strategy == "by_expert":
            self.weight.matrices = self.weight.unpacked
            for stack in self.stacks:
                stack.gradient = GRADIENTS.empty_like(stack.matrices) if stack.wants_gradient else None

    def forward(self, block: Block, inputs: Tensor, out: Tensor | None) -> Tensor:
        """inputs (n, in) -> (n, out)."""
        outputs = block.project(inputs, self.weight.unpacked, out)
        for b, a in self.adapters:
            outputs += block.project(block.project(inputs, a.unpacked), b.unpacked)
        return outputs

    def between_factors(self, block: Block, to_outputs: Tensor) -> list[Tensor]:
        """The gradient (n, r) of what each adapter has between A and B, from that of the outputs (n, out)."""
        return [block.project_back(to_outputs, b.unpacked) for b, _ in self.adapters]

    def input_gradient(self, block: Block, to_outputs: Tensor, between: list[Tensor], out: Tensor | None) -> Tensor:
        """The gradient of the inputs (n, in), from that of the outputs (n, out) and `between_factors`."""
        to_inputs = block.project_back(to_outputs, self.weight.unpacked, out)
        for to_between, (_, a) in zip(between, self.adapters, strict=True):
            to_inputs += block.project_back(to_between, a.unpacked)
        return to_inputs

    def take_gradients(self, block: Block, inputs: Tensor, to_outputs: Tensor, between: list[Tensor]) -> None:
        """The gradients of weight and factors that are asked for."""
        if self.weight.wants_gradient:
            self.weight.take_gradient(block, to_outputs, inputs)
        for to_between, (b, a) in zip(between, self.adapters, strict=True):
            if b.wants_gradient:
                b.take_gradient(block, to_outputs, block.project(inputs, a.unpacked))
            if a.wants_gradient:
                a.take_gradient(block, to_between, inputs)
