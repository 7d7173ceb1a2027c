"""Which card, which versions, how much room: what every other finding was found on."""

import platform
import shutil
import tempfile
from importlib.metadata import PackageNotFoundError, version

import torch

from gpu.part import Part

LIBRARIES = ("torch", "triton", "transformers", "trl", "peft", "accelerate", "datasets", "deepspeed", "wandb")


def run(part: Part) -> None:
    part.report("python", None, version=platform.python_version(), **{name: _version(name) for name in LIBRARIES})
    free = shutil.disk_usage(tempfile.gettempdir()).free
    part.report("disk", None, free_gib=round(free / 2**30, 1), folder=tempfile.gettempdir())
    if part.dry:
        return
    card = torch.cuda.get_device_properties(0)
    part.report(
        "card",
        None,
        name=card.name,
        capability=f"sm_{card.major}{card.minor}",
        multiprocessors=card.multi_processor_count,
        memory_gib=round(card.total_memory / 2**30, 1),
        cuda=torch.version.cuda,
    )


def _version(library: str) -> str | None:
    try:
        return version(library)
    except PackageNotFoundError:
        return None
