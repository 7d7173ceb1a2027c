"""Triton kernels for what PyTorch would read and write several times. Each has its twin in PyTorch beside its caller.

A GPU runs them; a CPU runs the twins, and its tests run the kernels in Triton's interpreter and compile them for GPUs.
"""

from functools import cache
from importlib.util import find_spec

import torch
from torch import Tensor


def use_triton(x: Tensor) -> bool:
    """Whether a tensor is on the device that kernels are launched on, and nothing traces the operations on it."""
    return x.is_cuda and x.get_device() == torch.cuda.current_device() and _installed() and not being_traced()


def being_traced() -> bool:
    """Whether torch is compiling, or a function transform (`torch.func`) is at work."""
    return torch.compiler.is_compiling() or torch._C._are_functorch_transforms_active()


@cache
def _installed() -> bool:
    return find_spec("triton") is not None
