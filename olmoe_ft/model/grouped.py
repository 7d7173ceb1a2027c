"""The experts' forward and backward pass over tokens sorted by expert, written out by hand.

Autograd would keep the gathered rows, SwiGLU's parts and product, and the experts' outputs. Here a layer keeps its
input and `gate_up` (R, 2I), and makes the rest again beside the products.

Shapes: T tokens, H hidden, I intermediate, E experts, K experts per token, R = T·K rows (a token once per expert),
r rank.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from olmoe_ft.model.gated import Activation, gated, gated_backward
from olmoe_ft.model.kernels import being_traced
from olmoe_ft.model.products import AllExperts, Block, on_each_expert
from olmoe_ft.model.reuse import ReusedMemory
from olmoe_ft.model.routes import Routes, combine
from olmoe_ft.model.traced import traced_experts

OLMOE_GROUPED = "olmoe_grouped"  # the name of this back end, the default one

GRADIENTS = ReusedMemory()

LowRank = tuple[Tensor, Tensor, float]  # an adapter: B (E, out, r), A (E, r, in), scaling s; the weight is W + s B A


def grouped_experts(module: Any, x: Tensor, experts: Tensor, weights: Tensor) -> Tensor:
    """`y_t = sum_k w_tk · down_e(act(gate_e(x_t)) · up_e(x_t))`, e = experts_tk: `OlmoeExperts` without its loop.

    With adapters `rows @ (W_e + s B_e A_e).T` is taken as `rows @ W_e.T + s (rows @ A_e.T) @ B_e.T`, summed over them:
    nothing of the size of W is made, and no gradient of W where it is frozen. Under autocast all is computed in its
    dtype. A weight that is kept packed (`adapters/quantize.py`) is unpacked forward and again backward.

    Args:
        module: has `gate_up_proj` (E, 2I, H), `down_proj` (E, H, I), `act_fn`, and `lent` factors by the weight's name.
        x: (T, H); experts: (T, K) indices; weights: (T, K).
    Returns:
        (T, H)
    """
    gate_up, down = module.gate_up_proj, module.down_proj
    device = x.device.type
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else gate_up.dtype
    adapters = [adapters_in(dtype, module.lent.get(name, ())) for name in ("gate_up_proj", "down_proj")]
    stacks = [stack.to(dtype) if isinstance(stack, Tensor) else stack for stack in (gate_up, down)]
    routes = Routes.of(experts, gate_up.shape[0])
    if being_traced():
        y = traced_experts(x.to(dtype), weights.to(dtype), routes, stacks, adapters, module.act_fn)
    else:
        factors = [factor for each in adapters for pair in each for factor in pair]
        settings = Settings(module.act_fn, routes, 2 * len(adapters[0]))
        y = Mixture.apply(x.to(dtype), weights.to(dtype), settings, *stacks, *factors)
    return y.to(x.dtype)


def adapters_in(dtype: torch.dtype, lent: Sequence[LowRank]) -> list[tuple[Tensor, Tensor]]:
    """Each adapter's `s B` (E, out, r) and `A` (E, r, in), of a rank of whole 16 bytes as the kernel wants."""
    pairs = []
    for b, a, scaling in lent:
        missing = -a.shape[1] % 8
        b, a = F.pad(b * scaling, (0, missing)), F.pad(a, (0, 0, 0, missing))
        pairs.append((b.to(dtype).contiguous(), a.to(dtype).contiguous()))
    return pairs


class Settings(NamedTuple):
    """What a mixture is computed by, beside tensors that have a gradient."""

    activation: Activation
    routes: Routes
    split: int  # how many of the adapters' factors are of `gate_up`


class Mixture(torch.autograd.Function):
    """Expert by expert on a CPU, in buffers that stay in its cache; all at once where a kernel can.

    Backward, for a row of token t with weight w that puts out `h W_down.T`: `dw = <dy_t W_down, h>`, which spares
    keeping the outputs (as in SonicMoE, https://arxiv.org/abs/2512.14080), and `dh = w · dy_t W_down`.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weights: Tensor, settings: Settings, gate_up: Any, down: Any, *factors: Tensor
    ) -> Tensor:
        """x (T, H), weights (T, K), stacks (E, 2I, H) and (E, H, I) or packed, their adapters' B and A -> (T, H)."""
        activation, routes, split = settings
        first, second = Projection(gate_up, factors[:split]), Projection(down, factors[split:])

        def work(block: Block, kept: Tensor | None, outputs: Tensor | None) -> tuple[Tensor, Tensor]:
            kept = first.forward(block, block.gather(x, "rows"), kept)
            hidden = gated(activation, kept, block.buffer("hidden"))
            return kept, second.forward(block, hidden, outputs)

        if AllExperts.can(routes, first.matrices + second.matrices):
            kept, outputs = work(AllExperts(routes), None, None)
        else:
            kept, outputs = (x.new_empty(routes.token.numel(), part.width) for part in (first, second))
            widths = {"rows": x.shape[1], "hidden": first.width // 2}
            on_each_expert(lambda one: work(one, one.part_of(kept), one.part_of(outputs)), routes, x, widths)
        stacks = [stack if isinstance(stack, Tensor) else None for stack in (gate_up, down)]
        ctx.save_for_backward(x, weights, kept, *routes, *stacks, *factors)
        ctx.settings = activation, split, gate_up, down
        return combine(outputs, routes, weights)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        activation, split, gate_up, down = ctx.settings
        x, weights, kept, *saved = ctx.saved_tensors
        routes, stacks, factors = Routes(*saved[:4]), saved[4:6], saved[6:]
        wanted = ctx.needs_input_grad[3:]
        first = Projection(gate_up if stacks[0] is None else stacks[0], factors[:split])
        second = Projection(down if stacks[1] is None else stacks[1], factors[split:])
        first.trained, second.trained = (wanted[0], *wanted[2 : 2 + split]), (wanted[1], *wanted[2 + split :])
        by_row = weights.flatten().index_select(0, routes.order).unsqueeze(1)  # (R, 1)
        to_weights = torch.empty_like(by_row[:, 0])

        def work(block: Block, to_rows: Tensor | None) -> Tensor:
            rows, dy = block.gather(x, "rows"), block.gather(gradient, "dy")
            projected, weight = block.part_of(kept), block.part_of(by_row)
            to_hidden, narrow = second.back(block, dy, block.buffer("to_hidden"))
            buffers = block.buffer("hidden"), block.buffer("to_projected")
            hidden, to_projected, dw = gated_backward(activation, projected, to_hidden, weight, *buffers)
            block.part_of(to_weights).copy_(dw)
            second.collect(block, hidden, dy, narrow)
            to_rows, narrow = first.back(block, to_projected, to_rows)
            first.collect(block, rows, to_projected, narrow)
            return to_rows

        if AllExperts.can(routes, first.matrices + second.matrices):
            to_rows = work(AllExperts(routes), None)
        else:
            to_rows = x.new_empty(routes.token.numel(), x.shape[1])
            for part in (first, second):
                part.allocate_gradients()
            hidden, width = first.width // 2, x.shape[1]
            buffers = {"rows": width, "dy": width, "hidden": hidden, "to_hidden": hidden, "to_projected": first.width}
            on_each_expert(lambda one: work(one, one.part_of(to_rows)), routes, x, buffers)
        dx = combine(to_rows, routes, None) if ctx.needs_input_grad[0] else None
        to_weights = to_weights.index_select(0, routes.place.flatten()).view_as(weights)
        each = (first.gradients[0], second.gradients[0], *first.gradients[1:], *second.gradients[1:])
        return dx, to_weights, None, *each


class Projection:
    """One stack of weights with its adapters, B and A of each."""

    def __init__(self, weight: Any, factors: Sequence[Tensor]) -> None:
        weight = weight if isinstance(weight, Tensor) else weight.dequantize()  # (E, out, in)
        self.matrices = [weight, *factors]
        self.width = weight.shape[1]
        self.trained: Sequence[bool] = ()  # which of the matrices; asked in backward
        self.gradients: list[Tensor | None] = [None] * len(self.matrices)

    def allocate_gradients(self) -> None:
        for index, wanted in enumerate(self.trained):
            self.gradients[index] = GRADIENTS.empty_like(self.matrices[index]) if wanted else None

    def forward(self, block: Block, rows: Tensor, out: Tensor | None) -> Tensor:
        weight, *factors = self.matrices
        y = block.times(rows, weight, out)
        for b, a in zip(factors[::2], factors[1::2], strict=True):
            y += block.times(block.times(rows, a), b)
        return y

    def back(self, block: Block, gradient: Tensor, out: Tensor | None) -> tuple[Tensor, list[Tensor]]:
        """The gradient of the rows, and `gradient @ B` of each adapter."""
        weight, *factors = self.matrices
        to_rows, narrow = block.back(gradient, weight, out), []
        for b, a in zip(factors[::2], factors[1::2], strict=True):
            narrow.append(block.back(gradient, b))
            to_rows += block.back(narrow[-1], a)
        return to_rows, narrow

    def collect(self, block: Block, rows: Tensor, gradient: Tensor, narrow: list[Tensor]) -> None:
        """The gradients of the matrices, from the rows that went in, the gradient of what came out, and `back`'s."""
        if self.trained[0]:
            block.outer(gradient, rows, self.gradients, 0)
        for index, to_a in enumerate(narrow):
            b, a = 1 + 2 * index, 2 + 2 * index
            if self.trained[b]:
                block.outer(gradient, block.times(rows, self.matrices[a]), self.gradients, b)
            if self.trained[a]:
                block.outer(to_a, rows, self.gradients, a)
