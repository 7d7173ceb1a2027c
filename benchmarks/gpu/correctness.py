"""Every operation of the CUDA path beside fp64, one after the other."""

import torch

from gpu import attention, head, kernels, mixtures, products
from gpu.part import Part


def run(part: Part) -> None:
    torch.manual_seed(0)
    for module in (products, kernels, mixtures, attention, head):
        part.attempt(module.__name__.rpartition(".")[2], lambda module=module: module.run(part), needs=2)
