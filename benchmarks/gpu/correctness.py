"""Every operation of the CUDA path beside fp64; our own products last, which take long to compile."""

from functools import partial

import torch

from gpu import attention, head, kernels, mixtures, products
from gpu.part import Part

CHECKS = {
    "torch's products": partial(products.run, name=products.TORCH),
    "kernels": kernels.run,
    "experts": mixtures.run,
    "attention": attention.run,
    "head": head.run,
    "own products": partial(products.run, name=products.OWN),
}


def run(part: Part) -> None:
    torch.manual_seed(0)
    for what, check in CHECKS.items():
        part.attempt(what, partial(check, part), needs=2)
