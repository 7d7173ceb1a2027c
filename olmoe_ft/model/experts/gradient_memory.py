"""Memory of large gradients on a CPU, used again in the next step.

The C library gets a block of more than 32 MiB from the kernel each time, and gives it back when it is freed. The
gradients of the experts are such blocks, and page faults in new ones took a fifth of a step of the benchmark's `mid`
network.
"""

import sys

import numpy as np
import torch
from torch import Tensor

MAPPED = 32 * 2**20  # bytes from which glibc maps memory, at most; smaller blocks it reuses by itself
_LIST = [np.empty(0)]
LISTED_ALONE = sys.getrefcount(_LIST[0])  # the count of an array that nothing but a list refers to


class ReusedMemory:
    """Hands out tensors, and hands their memory out again once no tensor refers to it."""

    def __init__(self) -> None:
        self.blocks: dict[int, list[np.ndarray]] = {}  # by size in bytes; a tensor on a block holds a reference to it

    def empty_like(self, tensor: Tensor) -> Tensor:
        """A contiguous tensor of the shape, dtype and device of `tensor`, uninitialised.

        A new one if it is small, on a GPU, whose allocator keeps what is freed, or no real tensor.
        """
        if tensor.device.type != "cpu" or tensor.nbytes <= MAPPED or type(tensor.data) is not Tensor:
            return torch.empty_like(tensor, memory_format=torch.contiguous_format)
        blocks = self.blocks.setdefault(tensor.nbytes, [])
        free = [index for index in range(len(blocks)) if sys.getrefcount(blocks[index]) == LISTED_ALONE]
        if not free:  # allocated by torch, so that its profiler counts the memory
            blocks.append(torch.empty(tensor.nbytes, dtype=torch.uint8).numpy())
        return torch.from_numpy(blocks[free[0] if free else -1]).view(tensor.dtype).view(tensor.shape)

    def release(self) -> None:
        """Give the memory back: at once what is free, the rest with its last tensor."""
        self.blocks.clear()


GRADIENTS = ReusedMemory()
"""The memory of all experts' gradients in this process; whoever has trained calls `release`."""
