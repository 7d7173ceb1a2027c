"""What the fork server does once, so that no run has to: imports, and loading DeepSpeed's kernel."""

import atexit
import gc
import os

import deepspeed.runtime.engine  # noqa: F401
import deepspeed.runtime.zero.stage3  # noqa: F401
import torch.utils.serialization  # noqa: F401
import transformers.models.olmoe  # noqa: F401
import wandb  # noqa: F401
from deepspeed.comm.torch import build_shm_op

import olmoe_ft.cli  # noqa: F401
import olmoe_ft.data.tokenizer  # noqa: F401
import olmoe_ft.pipeline  # noqa: F401
import olmoe_ft.run_stage  # noqa: F401

build_shm_op()
atexit.register(os._exit, 0)  # the server's own end; libraries would print what they find alive
gc.freeze()  # else every run's collector looks through all of it
