import os
import shutil

import pytest

# before any library reads them: no network, no telemetry, deterministic single-thread maths in every child process too
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("WANDB_MODE", "offline")
os.environ.setdefault("WANDB_SILENT", "true")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
if (
    shutil.which("nvidia-smi") is None
):  # Triton's kernels then run in its interpreter, which is chosen when it is imported
    os.environ["TRITON_INTERPRET"] = "1"


@pytest.fixture(autouse=True)
def seeded():
    import torch

    torch.manual_seed(0)
