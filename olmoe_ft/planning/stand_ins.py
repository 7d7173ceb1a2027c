"""What stands in for memory and for GPU kernels while a step runs on fake tensors."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from trl.kernels import chunked_logprob


@contextmanager
def tiles_in_place() -> Iterator[None]:
    """TRL's fused head as on a GPU: Triton kernels and `addmm` write where their results go, the CPU's copies are not
    made. What they compute does not matter here.
    """
    stand_ins = {
        "_forward_tile": lambda *args, **kwargs: None,
        "_backward_tile": lambda *args, **kwargs: None,
        "_addmm_fp32": lambda total, left, right: None,
    }
    before = {name: getattr(chunked_logprob, name) for name in stand_ins}
    for name, stand_in in stand_ins.items():
        setattr(chunked_logprob, name, stand_in)
    try:
        yield
    finally:
        for name, function in before.items():
            setattr(chunked_logprob, name, function)


def allocate(model: nn.Module) -> None:
    """Give every parameter and buffer of a model on the meta device a tensor of its own."""
    made: dict[int, Tensor] = {}  # tied weights stay tied
    for module in model.modules():
        for name, weight in module.named_parameters(recurse=False, remove_duplicate=False):
            fresh = nn.Parameter(torch.empty(weight.shape, dtype=weight.dtype), weight.requires_grad)
            setattr(module, name, made.setdefault(id(weight), fresh))
        for name, buffer in module.named_buffers(recurse=False):
            module._buffers[name] = torch.empty(buffer.shape, dtype=buffer.dtype)
