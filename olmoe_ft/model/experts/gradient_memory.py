"""Memory of gradients that is taken again in the next step.

The C library maps every block of more than 32 MiB anew and gives it back when it is freed, so that a CPU faults in all
gradients of the experts page by page in every step: a fifth of a step of the benchmark's `mid` network.
"""

import sys

import numpy as np
import torch
from torch import Tensor

MAPPED = 32 * 2**20  # bytes from which glibc maps memory, at most; smaller blocks it reuses by itself
_LIST = [np.empty(0)]
LISTED_ALONE = sys.getrefcount(_LIST[0])  # of an array that only a list refers to, asked for in this way


class ReusedMemory:
    """Gives out tensors, and their memory again when no tensor refers to it any more."""

    def __init__(self) -> None:
        self.blocks: dict[int, list[np.ndarray]] = {}  # by size; a tensor on a block holds a reference to it

    def empty_like(self, tensor: Tensor) -> Tensor:
        """A contiguous tensor of the shape, dtype and device of `tensor`, uninitialised.

        Plain memory if it is small, or on a GPU, whose allocator keeps what is freed.
        """
        if tensor.device.type != "cpu" or tensor.nbytes <= MAPPED or type(tensor.data) is not Tensor:  # a fake one, say
            return torch.empty_like(tensor, memory_format=torch.contiguous_format)
        blocks = self.blocks.setdefault(tensor.nbytes, [])
        free = [index for index in range(len(blocks)) if sys.getrefcount(blocks[index]) == LISTED_ALONE]
        if not free:  # from torch, so that its profiler sees the memory
            blocks.append(torch.empty(tensor.nbytes, dtype=torch.uint8).numpy())
        return torch.from_numpy(blocks[free[0] if free else -1]).view(tensor.dtype).view(tensor.shape)

    def release(self) -> None:
        """Give the memory back: at once what is free, the rest with its last tensor."""
        self.blocks.clear()
