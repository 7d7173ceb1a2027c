"""The experts' gated activation, `act(gate) · up` (SwiGLU: Shazeer 2020, https://arxiv.org/abs/2002.05202), and back.

Shapes: R rows, I intermediate.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from transformers.activations import ACT2FN

from olmoe_ft.model.kernels import use_triton

Activation = Callable[[Tensor], Tensor]
SILU = nn.SiLU, type(ACT2FN["silu"])  # transformers has a class of its own for it


def gated(activation: Activation, gate_up: Tensor, out: Tensor | None = None) -> Tensor:
    """gate_up (R, 2I), gate columns first -> (R, I), in `out` where it is given."""
    gate, up = gate_up.chunk(2, dim=-1)
    if not isinstance(activation, SILU):
        return torch.mul(activation(gate), up, out=out)
    if use_triton(gate_up):
        from olmoe_ft.model.kernels.swiglu import swiglu

        return swiglu(gate_up)
    out = torch.empty_like(up) if out is None else out
    return torch.ops.aten.silu.out(gate, out=out).mul_(up)


def gated_backward(
    activation: Activation,
    gate_up: Tensor,
    gradient: Tensor,
    weights: Tensor,
    hidden: Tensor | None = None,
    out: Tensor | None = None,
    last_reader: bool = False,
) -> tuple[Tensor, Tensor, Tensor]:
    """Everything about the product's gradient, where a row counts with a weight.

    Args:
        gate_up: (R, 2I).
        gradient: (R, I), of the product before its weight; used up as working memory.
        weights: (R, 1).
        hidden, out: (R, I) and (R, 2I) for the first two results, where they are given.
        last_reader: whether nobody reads gate_up after this: the kernel then writes its gradient there.
    Returns:
        the weighted product (R, I), the gradient of gate_up (R, 2I), and that of the weights (R,).
    """
    if use_triton(gate_up) and isinstance(activation, SILU):
        from olmoe_ft.model.kernels.swiglu import swiglu_backward

        return swiglu_backward(gate_up, gradient, weights.flatten(), last_reader)
    hidden = gated(activation, gate_up, hidden)
    to_weights = torch.linalg.vecdot(gradient, hidden)
    gradient = gradient.mul_(weights)
    gate, up = gate_up.chunk(2, dim=-1)
    out = torch.empty_like(gate_up) if out is None else out
    to_gate, to_up = out.chunk(2, dim=-1)
    if isinstance(activation, SILU):
        torch.ops.aten.silu.out(gate, out=to_up).mul_(gradient)
        torch.ops.aten.silu_backward.grad_input(gradient.mul_(up), gate, grad_input=to_gate)
    else:
        with torch.enable_grad():
            gate = gate.detach().requires_grad_()
            activated = activation(gate)
        torch.mul(gradient, activated.detach(), out=to_up)
        to_gate.copy_(torch.autograd.grad(activated, gate, gradient.mul_(up))[0])
    return hidden.mul_(weights), out, to_weights
