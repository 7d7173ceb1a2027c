"""The experts' gated activation, `act(gate) · up` (SwiGLU: Shazeer 2020, https://arxiv.org/abs/2002.05202), and back.

Shapes: R rows, I intermediate.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

Activation = Callable[[Tensor], Tensor]


def gated(activation: Activation, gate_up: Tensor, out: Tensor | None = None) -> Tensor:
    """gate_up (R, 2I), gate columns first -> (R, I), in `out` where it is given."""
    gate, up = gate_up.chunk(2, dim=-1)
    if isinstance(activation, nn.SiLU):
        out = torch.empty_like(up) if out is None else out
        return torch.ops.aten.silu.out(gate, out=out).mul_(up)
    return torch.mul(activation(gate), up, out=out)


def gated_backward(activation: Activation, gate_up: Tensor, gradient: Tensor, out: Tensor | None = None) -> Tensor:
    """The gradient of `gate_up` (R, 2I) from that of the product (R, I), which is used up as working memory."""
    gate, up = gate_up.chunk(2, dim=-1)
    out = torch.empty_like(gate_up) if out is None else out
    to_gate, to_up = out.chunk(2, dim=-1)
    if isinstance(activation, nn.SiLU):
        torch.ops.aten.silu.out(gate, out=to_up).mul_(gradient)
        torch.ops.aten.silu_backward.grad_input(gradient.mul_(up), gate, grad_input=to_gate)
        return out
    with torch.enable_grad():
        gate = gate.detach().requires_grad_()
        activated = activation(gate)
    torch.mul(gradient, activated.detach(), out=to_up)
    to_gate.copy_(torch.autograd.grad(activated, gate, gradient.mul_(up))[0])
    return out
