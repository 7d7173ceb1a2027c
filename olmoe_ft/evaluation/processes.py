"""The processes of a launch that evaluates without training."""

import os
from datetime import timedelta

import torch
import torch.distributed as dist
from accelerate import PartialState

from olmoe_ft.training.arguments import COLLECTIVE
from olmoe_ft.training.watch import STILL, watch_ranks


def start_processes() -> None:
    """Start the process group that transformers' arguments start in a training, and have the ranks watch each other;
    nothing in a single process. accelerate by itself starts none under DeepSpeed without a GPU."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1 or dist.is_initialized():
        return
    timeout = timedelta(seconds=COLLECTIVE)
    if torch.accelerator.is_available():
        PartialState(timeout=timeout)
    else:
        under_deepspeed = os.environ.get("ACCELERATE_USE_DEEPSPEED") == "true"
        PartialState(cpu=not under_deepspeed, backend="gloo", timeout=timeout)
    watch_ranks(STILL)
