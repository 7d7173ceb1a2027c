"""Folders with their free space, and environment variables that change what libraries do."""

import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

from olmoe_ft.constants import GIB
from olmoe_ft.training.builds import builder

ROOM = 20  # GiB that a run of the released network needs to save: 13 of weights, more with optimizer states
NAMES = re.compile(
    r"^(HF_|HUGGING|TRANSFORMERS_|DATASETS_|WANDB_|CUDA_|NVIDIA_|NCCL_|GLOO_|TORCH|PYTORCH_|OMP_|MKL_|GOMP_|KMP_|ACCELERATE_|DS_|"
    r"DEEPSPEED|TRITON_|TOKENIZERS_|RANK$|LOCAL_RANK$|WORLD_SIZE$|MASTER_|SLURM_JOB_ID$|LD_LIBRARY_PATH$|LD_PRELOAD$|"
    r"PYTHON|XDG_CACHE_HOME$|TMPDIR$|NETRC$|(https?|all|no)_proxy$)",
    re.IGNORECASE,
)
NAMES_OF_SECRETS = re.compile(r"TOKEN(?!IZ)|KEY|SECRET|PASS(?!ENGER)|CREDENTIAL|AUTH", re.IGNORECASE)


def folders(findings: list[str]) -> Iterator[str]:
    """The folders that a run writes to, with their free space."""
    from datasets import config
    from huggingface_hub import constants

    home = Path.home()
    extensions = Path(os.environ.get("TORCH_EXTENSIONS_DIR", home / ".cache/torch_extensions"))
    places = {
        "runs/": Path("runs"),
        "HF_HOME": Path(constants.HF_HOME),
        "models (HF_HUB_CACHE)": Path(constants.HF_HUB_CACHE),
        "prepared rows": Path(config.HF_DATASETS_CACHE) / "olmoe_ft",
        "DeepSpeed's builds": extensions,
        "Triton's kernels": Path(os.environ.get("TRITON_CACHE_DIR", home / ".triton/cache")),
    }
    for name, place in places.items():
        there = next(folder for folder in (place.absolute(), *place.absolute().parents) if folder.exists())
        free, writable = shutil.disk_usage(there).free / GIB, os.access(there, os.W_OK)
        yield f"{name}: {place} ({free:.0f} GiB{'' if there == place.absolute() else ', does not exist yet'})"
        if not writable or not there.is_dir():
            findings.append(f"{name}: {there} is not writable; set its variable to a folder that is, or start in one")
        elif free < ROOM and name == "runs/":
            findings.append(
                f"{name}: found {free:.0f} GiB free; the released network needs at least 13 for each "
                "save; free some space"
            )
        elif free < 1:
            findings.append(f"{name}: the disk of {place} is full; free some space")
    for lock in sorted(extensions.rglob("lock"))[:3]:
        if (process := builder(lock)) is not None:
            findings.append(
                f"{lock}: process {process} is building an operator of DeepSpeed, and launches wait until it is done"
            )
        else:
            findings.append(
                f"{lock}: no process here holds this lock of DeepSpeed's {lock.parent.name}, but every launch waits "
                "for it "
                "to disappear; if no other computer is building it, remove the file"
            )


def variables(findings: list[str]) -> Iterator[str]:
    """The variables that matter and are set; of secrets only the names."""
    for name, value in sorted(os.environ.items()):
        if NAMES.search(name):
            yield f"{name}={'(set, not shown)' if NAMES_OF_SECRETS.search(name) else value[:200]}"
    if os.environ.get("CUDA_LAUNCH_BLOCKING") == "1":
        findings.append("CUDA_LAUNCH_BLOCKING=1 makes every kernel wait; unset it after debugging")
