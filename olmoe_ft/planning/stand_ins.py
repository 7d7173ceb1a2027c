"""Substitutes for memory and for GPU kernels while a step runs on fake tensors."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from trl.kernels import chunked_logprob

from olmoe_ft.model.experts import activation as activations
from olmoe_ft.model.experts import autograd
from olmoe_ft.model.experts.dispatch import Routes
from olmoe_ft.model.experts.matmul import force_strategy
from olmoe_ft.training.optimizer import adamw


@contextmanager
def as_on_a_gpu() -> Iterator[None]:
    """All experts are multiplied at once; in TRL's fused head Triton kernels and `addmm` write where their results go,
    without the CPU's copies, and so do the experts' own kernels and the optimizer's. What is computed does not matter.
    """
    stand_ins: dict[tuple[Any, str], Any] = {
        (chunked_logprob, "_forward_tile"): lambda *args, **kwargs: None,
        (chunked_logprob, "_backward_tile"): lambda *args, **kwargs: None,
        (chunked_logprob, "_addmm_fp32"): lambda total, left, right: None,
        (adamw, "update"): lambda *args: None,
        (autograd, "gated_backward"): _gated_backward,
        (autograd, "combine"): _combine,
    }
    before = {(owner, name): owner.__dict__[name] for owner, name in stand_ins}
    for (owner, name), stand_in in stand_ins.items():
        setattr(owner, name, stand_in)
    try:
        with force_strategy("at_once"):
            yield
    finally:
        for (owner, name), original in before.items():
            setattr(owner, name, original)


def _gated_backward(
    activation: Any, gate_up: Tensor, gradient: Tensor, weights: Tensor, hidden: None, out: None, last_reader: bool
) -> tuple[Tensor, Tensor, Tensor]:
    if not isinstance(activation, activations.SILU):  # for which there is no kernel
        return activations.gated_backward(activation, gate_up, gradient, weights)
    return gradient, gate_up if last_reader else torch.empty_like(gate_up), torch.empty_like(weights[:, 0])


def _combine(rows: Tensor, routes: Routes, weights: Tensor | None) -> Tensor:
    return rows.new_empty(routes.place.shape[0], rows.shape[1])


def allocate(model: nn.Module) -> None:
    """Give every parameter and buffer of a model on the meta device a tensor of its own."""
    made: dict[int, Tensor] = {}  # tied weights stay tied
    for module in model.modules():
        for name, weight in module.named_parameters(recurse=False, remove_duplicate=False):
            fresh = nn.Parameter(torch.empty(weight.shape, dtype=weight.dtype), weight.requires_grad)
            setattr(module, name, made.setdefault(id(weight), fresh))
        for name, buffer in module.named_buffers(recurse=False):
            module._buffers[name] = torch.empty(buffer.shape, dtype=buffer.dtype)
