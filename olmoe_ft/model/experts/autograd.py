"""The experts' forward and backward pass over tokens sorted by expert, written out by hand.

Autograd would keep the gathered rows, SwiGLU's parts and product, and the experts' outputs. Here a layer keeps its
input and `gate_up` (R, 2I), and makes the rest again beside the products. Backward makes each only when it is read, and
drops it before the next is made.

Shapes: T tokens, H hidden, I intermediate, E experts, K experts per token, R = T·K rows (a token once per expert),
r rank.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from olmoe_ft.model.experts.activation import Activation, gated, gated_backward
from olmoe_ft.model.experts.dispatch import Routes, combine
from olmoe_ft.model.experts.gradient_memory import ReusedMemory
from olmoe_ft.model.experts.matmul import AllExperts, Block, on_each_expert
from olmoe_ft.model.experts.peft_bridge import refuse_folded_weights
from olmoe_ft.model.experts.traced import traced_experts
from olmoe_ft.model.kernels import being_traced

GRADIENTS = ReusedMemory()

LowRank = tuple[Tensor, Tensor, float]  # an adapter: B (E, out, r), A (E, r, in), scaling s; the weight is W + s B A


def grouped_experts(module: Any, x: Tensor, experts: Tensor, weights: Tensor) -> Tensor:
    """`y_t = sum_k w_tk · down_e(act(gate_e(x_t)) · up_e(x_t))`, e = experts_tk: `OlmoeExperts` without its loop.

    With adapters `rows @ (W_e + s B_e A_e).T` is taken as `rows @ W_e.T + s (rows @ A_e.T) @ B_e.T`, summed over them:
    nothing of the size of W is made, and no gradient of W where it is frozen. Under autocast all is computed in its
    dtype. A weight that is kept packed (`adapters/quantize.py`) is unpacked forward and again backward.

    Args:
        module: has `gate_up_proj` (E, 2I, H), `down_proj` (E, H, I), `act_fn`, and by weight its `low_rank_factors`.
        x: (T, H); experts: (T, K) indices; weights: (T, K).
    Returns:
        (T, H)
    """
    refuse_folded_weights(module)
    gate_up, down = module.gate_up_proj, module.down_proj
    device = x.device.type
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else gate_up.dtype
    adapters = [adapters_in(dtype, module.low_rank_factors.get(name, ())) for name in ("gate_up_proj", "down_proj")]
    stacks = [stack.to(dtype) if isinstance(stack, Tensor) else stack for stack in (gate_up, down)]
    routes = Routes.of(experts, gate_up.shape[0])
    rows, by = x.to(dtype), weights.to(dtype)
    if being_traced():
        y = traced_experts(rows, by, routes, stacks, adapters, module.act_fn)
    else:
        factors = [factor for each in adapters for pair in each for factor in pair]
        outlines = [stack if isinstance(stack, Tensor) else stack.outline() for stack in stacks]
        at_once = AllExperts.can(routes, outlines + factors)
        settings = Settings(module.act_fn, routes, 2 * len(adapters[0]), at_once)
        promise, kept = Mixture.apply(rows, by, settings, *stacks, *factors)
        y = Output.apply(promise, partial(put_out, kept, by, settings, stacks[1], factors[settings.split :]))
    return y.to(x.dtype)


def adapters_in(dtype: torch.dtype, factors: Sequence[LowRank]) -> list[tuple[Tensor, Tensor]]:
    """Each adapter's `s B` (E, out, r) and `A` (E, r, in), of a rank of whole 16 bytes as the kernel wants."""
    pairs = []
    for b, a, scaling in factors:
        missing = -a.shape[1] % 8
        b, a = F.pad(b * scaling, (0, missing)), F.pad(a, (0, 0, 0, missing))
        pairs.append((b.to(dtype).contiguous(), a.to(dtype).contiguous()))
    return pairs


class Settings(NamedTuple):
    """What a mixture is computed by, beside tensors that have a gradient."""

    activation: Activation
    routes: Routes
    split: int  # how many of the adapters' factors are of `gate_up`
    at_once: bool  # all experts in one kernel; else expert by expert, in buffers that stay in a CPU's cache


class Mixture(torch.autograd.Function):
    """All that the backward pass of the experts needs: forward as far as `kept`, and the whole way back.

    Backward, for a row of token t with weight w that puts out `h W_down.T`: `dw = <dy_t W_down, h>`, which spares
    keeping the outputs (as in SonicMoE, https://arxiv.org/abs/2512.14080), and `dh = w · dy_t W_down`.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weights: Tensor, settings: Settings, gate_up: Any, down: Any, *factors: Tensor
    ) -> tuple[Tensor, Tensor]:
        """x (T, H), weights (T, K), stacks (E, 2I, H) and (E, H, I) or packed, their adapters' B and A.

        Returns:
            the promise of an output (T, H): no content, but its gradient; and `kept` (R, 2I), without a gradient.
        """
        routes, first = settings.routes, Projection(gate_up, factors[: settings.split])
        if settings.at_once:
            block = AllExperts(routes)
            kept = first.forward(block, block.gather(x, "rows"), None)
        else:
            first.unpack()
            kept = x.new_empty(routes.token.numel(), first.width)
            on_each_expert(
                lambda one: first.forward(one, one.gather(x, "rows"), one.part_of(kept)),
                routes, x, {"rows": x.shape[1]},
            )  # fmt: skip
        stacks = [stack if isinstance(stack, Tensor) else None for stack in (gate_up, down)]
        ctx.save_for_backward(x, weights, kept, *routes, *stacks, *factors)
        ctx.settings = settings, gate_up, down
        ctx.mark_non_differentiable(kept)
        ctx.set_materialize_grads(False)  # no zeros as the gradient of `kept`
        return x.new_empty(()).expand_as(x), kept

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor, _: None) -> tuple[Tensor | None, ...]:
        (activation, _routes, split, at_once), gate_up, down = ctx.settings
        x, weights, kept, *saved = ctx.saved_tensors
        routes, stacks, factors = Routes(*saved[:4]), saved[4:6], saved[6:]
        wanted = ctx.needs_input_grad[3:]
        first = Projection(gate_up if stacks[0] is None else stacks[0], factors[:split])
        second = Projection(down if stacks[1] is None else stacks[1], factors[split:])
        first.trained, second.trained = (wanted[0], *wanted[2 : 2 + split]), (wanted[1], *wanted[2 + split :])
        by_row = weights.flatten().index_select(0, routes.order).unsqueeze(1)  # (R, 1)
        to_weights = torch.empty_like(by_row[:, 0])
        last_reader = not torch._C._autograd._get_current_graph_task_keep_graph()  # no second backward pass

        def work(block: Block, to_rows: Tensor | None) -> Tensor:
            dy = block.gather(gradient, "rows")
            narrow = second.narrow(block, dy)
            to_hidden = second.back(block, dy, narrow, block.buffer("to_hidden"))
            projected, weight = block.part_of(kept), block.part_of(by_row)
            buffers = block.buffer("hidden"), block.buffer("to_projected")
            hidden, to_projected, dw = gated_backward(activation, projected, to_hidden, weight, *buffers, last_reader)
            block.part_of(to_weights).copy_(dw)
            second.collect(block, hidden, dy, narrow)
            del dy, to_hidden, hidden
            narrow = first.narrow(block, to_projected)
            if any(first.trained):
                first.collect(block, block.gather(x, "rows"), to_projected, narrow)
            return first.back(block, to_projected, narrow, to_rows)

        if at_once:
            to_rows = work(AllExperts(routes), None)
        else:
            to_rows = x.new_empty(routes.token.numel(), x.shape[1])
            for part in (first, second):
                part.unpack()
                part.allocate_gradients()
            hidden = first.width // 2
            buffers = {"rows": x.shape[1], "hidden": hidden, "to_hidden": hidden, "to_projected": first.width}
            on_each_expert(lambda one: work(one, one.part_of(to_rows)), routes, x, buffers)
        dx = combine(to_rows, routes, None) if ctx.needs_input_grad[0] else None
        to_weights = to_weights.index_select(0, routes.place.flatten()).view_as(weights)
        each = (first.gradients[0], second.gradients[0], *first.gradients[1:], *second.gradients[1:])
        return dx, to_weights, None, *each


class Output(torch.autograd.Function):
    """What a mixture puts out. Its gradient is the promise's, so it keeps nothing.

    Checkpointing makes a layer anew until the last tensor that was kept, which is `Mixture`'s: what is done here, the
    products with `down` and the sum over experts, is then not done again. (Reentrant checkpointing makes all anew.)
    """

    @staticmethod
    def forward(ctx: Any, promise: Tensor, make: Callable[[], Tensor]) -> Tensor:
        return make()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient, None


def put_out(kept: Tensor, weights: Tensor, settings: Settings, down: Any, factors: Sequence[Tensor]) -> Tensor:
    """`kept` (R, 2I) and weights (T, K) -> the mixture's output (T, H)."""
    activation, routes, _, at_once = settings
    second = Projection(down, factors)

    def work(block: Block, outputs: Tensor | None) -> Tensor:
        return second.forward(block, gated(activation, block.part_of(kept), block.buffer("hidden")), outputs)

    if at_once:
        outputs = work(AllExperts(routes), None)
    else:
        second.unpack()
        outputs = kept.new_empty(routes.token.numel(), second.width)
        on_each_expert(lambda one: work(one, one.part_of(outputs)), routes, outputs, {"hidden": kept.shape[1] // 2})
    return combine(outputs, routes, weights)


class Projection:
    """One stack of weights, maybe packed, with its adapters: B and A of each."""

    def __init__(self, weight: Any, factors: Sequence[Tensor]) -> None:
        self.weight, self.factors = weight, factors  # (E, out, in); (E, out, r) and (E, r, in)
        self.width = weight.shape[1]
        self.trained: Sequence[bool] = ()  # the weight, and each factor; asked in backward
        self.gradients: list[Tensor | None] = [None] * (1 + len(factors))

    @property
    def adapters(self) -> list[tuple[Tensor, Tensor]]:
        return list(zip(self.factors[::2], self.factors[1::2], strict=True))

    def unpack(self) -> None:
        """Once, where the weight is read for each expert."""
        self.weight = unpacked(self.weight)

    def allocate_gradients(self) -> None:
        for index, (matrix, wanted) in enumerate(zip((self.weight, *self.factors), self.trained, strict=True)):
            self.gradients[index] = GRADIENTS.empty_like(matrix) if wanted else None

    def forward(self, block: Block, rows: Tensor, out: Tensor | None) -> Tensor:
        y = block.times(rows, unpacked(self.weight), out)
        for b, a in self.adapters:
            y += block.times(block.times(rows, a), b)
        return y

    def narrow(self, block: Block, gradient: Tensor) -> list[Tensor]:
        """`gradient @ B` of each adapter, for the gradient of what came out."""
        return [block.back(gradient, b) for b, _ in self.adapters]

    def back(self, block: Block, gradient: Tensor, narrow: list[Tensor], out: Tensor | None) -> Tensor:
        """The gradient of the rows that went in."""
        to_rows = block.back(gradient, unpacked(self.weight), out)
        for to_a, (_, a) in zip(narrow, self.adapters, strict=True):
            to_rows += block.back(to_a, a)
        return to_rows

    def collect(self, block: Block, rows: Tensor, gradient: Tensor, narrow: list[Tensor]) -> None:
        """The gradients of what is trained, from the rows that went in and the gradient of what came out."""
        if self.trained[0]:
            block.outer(gradient, rows, self.gradients, 0)
        for index, to_a in enumerate(narrow):
            b, a = 1 + 2 * index, 2 + 2 * index
            if self.trained[b]:
                block.outer(gradient, block.times(rows, self.factors[a - 1]), self.gradients, b)
            if self.trained[a]:
                block.outer(to_a, rows, self.gradients, a)


def unpacked(weight: Any) -> Tensor:
    return weight if isinstance(weight, Tensor) else weight.dequantize()
