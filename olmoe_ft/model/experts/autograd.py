"""The experts' forward and backward pass over tokens sorted by expert, written out by hand.

Autograd would keep the gathered rows, SwiGLU's parts and product, and the experts' outputs. Here a layer keeps its
input and what came out of `gate_up` (R, 2I), and computes the rest again in the backward pass, each when it is read,
and drops it before the next is made.

Shapes: T tokens, H hidden, I intermediate, E experts, K experts per token, R = T·K rows (a token once per expert),
r rank, n rows of a block (`matmul.Block`).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from olmoe_ft.model.experts.activation import Activation, gated, gated_backward
from olmoe_ft.model.experts.dispatch import Routes, combine
from olmoe_ft.model.experts.few_rows import are_few, few_rows
from olmoe_ft.model.experts.matmul import Block, Strategy, choose_strategy, on_blocks
from olmoe_ft.model.experts.peft_bridge import refuse_folded_weights
from olmoe_ft.model.experts.projection import Projection
from olmoe_ft.model.experts.traced import traced_experts
from olmoe_ft.model.kernels import being_traced
from olmoe_ft.model.names import STACKS

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
    adapters = [adapters_in(dtype, module.low_rank_factors.get(name, ())) for name in STACKS]
    gate_up, down = (stack.to(dtype) if isinstance(stack, Tensor) else stack for stack in (gate_up, down))
    tokens, token_weights = x.to(dtype), weights.to(dtype)
    forward_alone = not torch.is_grad_enabled()
    if forward_alone and not any(adapters) and not being_traced() and are_few(experts, gate_up):
        return few_rows(tokens, experts, token_weights, gate_up, down, module.act_fn).to(x.dtype)
    routes = Routes.of(experts, gate_up.shape[0])
    if being_traced():
        y = traced_experts(tokens, token_weights, routes, (gate_up, down), adapters, module.act_fn)
    else:
        of_gate_up, of_down = ([factor for pair in pairs for factor in pair] for pairs in adapters)
        outlines = [stack if isinstance(stack, Tensor) else stack.outline() for stack in (gate_up, down)]
        strategy = choose_strategy(routes, [*outlines, *of_gate_up, *of_down])
        settings = Settings(module.act_fn, routes, strategy, len(of_gate_up))
        if forward_alone:
            projected = mixture_projected(tokens, settings, gate_up, of_gate_up)
            y = mixture_output(projected, token_weights, settings, down, of_down)
        else:
            placeholder, projected = Mixture.apply(
                tokens, token_weights, settings, gate_up, down, *of_gate_up, *of_down
            )
            y = Output.apply(placeholder, partial(mixture_output, projected, token_weights, settings, down, of_down))
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
    strategy: Strategy
    factors_of_gate_up: int  # how many of the adapters' factors are on `gate_up`, which come first


class Mixture(torch.autograd.Function):
    """All that the backward pass of the experts needs: forward as far as `gate_up`, and the whole way back."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weights: Tensor, settings: Settings, gate_up: Any, down: Any, *factors: Tensor
    ) -> tuple[Tensor, Tensor]:
        """x (T, H), weights (T, K), stacks (E, 2I, H) and (E, H, I) or packed, their adapters' B and A.

        Returns:
            a placeholder of the output (T, H), without content, which brings its gradient; and `projected` (R, 2I),
            what comes out of `gate_up`, without a gradient.
        """
        projected = mixture_projected(x, settings, gate_up, factors[: settings.factors_of_gate_up])
        tensors = [stack if isinstance(stack, Tensor) else None for stack in (gate_up, down)]
        ctx.save_for_backward(x, weights, projected, *settings.routes, *tensors, *factors)
        ctx.settings, ctx.packed = settings, (gate_up, down)
        ctx.mark_non_differentiable(projected)
        ctx.set_materialize_grads(False)  # no zeros as the gradient of `projected`
        return x.new_empty(()).expand_as(x), projected

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor, _: None) -> tuple[Tensor | None, ...]:
        """The gradient (T, H) of the placeholder -> that of each argument of `forward`."""
        settings: Settings = ctx.settings
        x, weights, projected, order, place, token, ends, gate_up, down, *factors = ctx.saved_tensors
        routes = Routes(order, place, token, ends)
        wants_x, _weights, _settings, wants_gate_up, wants_down, *wants_factors = ctx.needs_input_grad
        packed_gate_up, packed_down = ctx.packed
        split = settings.factors_of_gate_up
        first = Projection(
            packed_gate_up if gate_up is None else gate_up, factors[:split], [wants_gate_up, *wants_factors[:split]]
        )
        second = Projection(
            packed_down if down is None else down, factors[split:], [wants_down, *wants_factors[split:]]
        )
        for projection in (first, second):
            projection.prepare(settings.strategy)
        row_weights = weights.flatten().index_select(0, order).unsqueeze(1)  # (R, 1)
        steps = MixtureBackward(settings.activation, first, second, x, projected, row_weights, gradient)
        inner = first.width // 2  # I
        to_rows = on_blocks(
            settings.strategy,
            steps.row_gradient,
            routes,
            x,
            x.shape[1],
            {"rows": x.shape[1], "hidden": inner, "to_hidden": inner, "to_projected": first.width},
        )
        to_x = combine(to_rows, routes, None) if wants_x else None
        to_weights = steps.to_weights.index_select(0, place.flatten()).view_as(weights)
        (to_gate_up, *to_first), (to_down, *to_second) = (
            [stack.gradient for stack in projection.stacks] for projection in (first, second)
        )
        return to_x, to_weights, None, to_gate_up, to_down, *to_first, *to_second


@dataclass
class MixtureBackward:
    """From the gradient of a mixture's output to that of its rows, block by block; those of the weights beside it.

    For a row of token t with weight w whose output is `h W_down.T`: `dw = <dy_t W_down, h>`, which spares keeping the
    outputs (as in SonicMoE, https://arxiv.org/abs/2512.14080), and `dh = w · dy_t W_down`.
    """

    activation: Activation
    gate_up: Projection
    down: Projection
    x: Tensor  # (T, H)
    projected: Tensor  # (R, 2I), what came out of `gate_up`
    row_weights: Tensor  # (R, 1), each row's weight
    gradient: Tensor  # (T, H), of the output

    def __post_init__(self) -> None:
        self.to_weights = torch.empty_like(self.row_weights[:, 0])  # (R,), filled block by block
        # nobody reads `projected` again, unless the graph is kept for a second backward pass
        self.last_reader = not torch._C._autograd._get_current_graph_task_keep_graph()

    def row_gradient(self, block: Block, out: Tensor | None) -> Tensor:
        """The gradient (n, H) of the block's rows."""
        dy = block.gather(self.gradient)  # (n, H)
        between = self.down.between_factors(block, dy)
        to_hidden = self.down.input_gradient(block, dy, between, block.buffer("to_hidden"))  # (n, I)
        hidden, to_projected, to_weights = gated_backward(
            self.activation,
            block.part_of(self.projected),
            to_hidden,
            block.part_of(self.row_weights),
            block.buffer("hidden"),
            block.buffer("to_projected"),
            self.last_reader,
        )  # (n, I), (n, 2I), (n,)
        block.part_of(self.to_weights).copy_(to_weights)
        self.down.take_gradients(block, hidden, dy, between)
        del dy, to_hidden, hidden  # their memory is needed
        between = self.gate_up.between_factors(block, to_projected)
        if self.gate_up.is_trained:
            self.gate_up.take_gradients(block, block.gather(self.x), to_projected, between)
        return self.gate_up.input_gradient(block, to_projected, between, out)


class Output(torch.autograd.Function):
    """What a mixture puts out. Its gradient is that of the placeholder, so nothing is kept for it.

    Gradient checkpointing runs a layer again only up to the last tensor that its backward pass needs, and `Mixture`
    keeps that one. What is done here, the products with `down` and the sum over experts, is therefore not done again.
    (Reentrant checkpointing runs all again.)
    """

    @staticmethod
    def forward(ctx: Any, placeholder: Tensor, make: Callable[[], Tensor]) -> Tensor:
        return make()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient, None


def mixture_projected(x: Tensor, settings: Settings, gate_up: Any, factors: Sequence[Tensor]) -> Tensor:
    """x (T, H) -> what comes out of `gate_up`, (R, 2I)."""
    first = Projection(gate_up, factors)
    first.prepare(settings.strategy)
    return on_blocks(
        settings.strategy,
        lambda block, out: first.forward(block, block.gather(x), out),
        settings.routes,
        x,
        first.width,
        {"rows": x.shape[1]},
    )


def mixture_output(
    projected: Tensor, weights: Tensor, settings: Settings, down: Any, factors: Sequence[Tensor]
) -> Tensor:
    """`projected` (R, 2I) and weights (T, K) -> the mixture's output (T, H)."""
    second = Projection(down, factors)
    second.prepare(settings.strategy)

    def outputs_of(block: Block, out: Tensor | None) -> Tensor:
        """(n, H)"""
        hidden = gated(settings.activation, block.part_of(projected), block.buffer("hidden"))
        return second.forward(block, hidden, out)

    buffers = {"hidden": projected.shape[1] // 2}
    outputs = on_blocks(settings.strategy, outputs_of, settings.routes, projected, second.width, buffers)
    return combine(outputs, settings.routes, weights)
