"""Versions, and what a run would use."""

import os
import platform
import sys
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, distribution, version
from importlib.util import find_spec
from pathlib import Path

from packaging.requirements import Requirement

import olmoe_ft
from olmoe_ft.stages import STAGES

LIBRARIES = (
    "torch transformers trl peft accelerate deepspeed datasets tokenizers huggingface_hub wandb safetensors numpy "
    "pyarrow triton bitsandbytes flash-attn"
).split()
LIGHT = {"name": "doctor", "stage": next(iter(STAGES)), "data": {"train": [{"path": "rows.jsonl"}]}}
RELEASED_SIZES = (2048, 1024)  # hidden and intermediate, of OLMoE-1B-7B


def versions(findings: list[str]) -> Iterator[str]:
    """Python, the system, this package and its dependencies."""
    yield f"python {platform.python_version()} ({sys.executable}), {platform.platform()}"
    yield f"olmoe_ft {_version('olmoe_ft')} in {Path(olmoe_ft.__file__).parent}, git {_revision()}"
    found = [f"{name} {_version(name)}" for name in LIBRARIES]
    for start in range(0, len(found), 4):
        yield ", ".join(found[start : start + 4])
    for text in distribution("olmoe_ft").requires or ():
        wanted = Requirement(text)
        if wanted.marker is not None and not wanted.marker.evaluate({"extra": ""}):
            continue
        if (there := _version(wanted.name)) == "not installed":
            findings.append(f"{wanted.name} is not installed; run pip install '{wanted.name}{wanted.specifier}'")
        elif not wanted.specifier.contains(there, prereleases=True):
            findings.append(
                f"{wanted.name}: found version {there}; allowed: {wanted.specifier}; "
                f"run pip install '{wanted.name}{wanted.specifier}'"
            )


def choices(findings: list[str]) -> Iterator[str]:
    """Attention, experts and optimizer, chosen by the rules of a run."""
    import torch

    from olmoe_ft.model.experts.matmul import kernel_for
    from olmoe_ft.recipe.precision import deepspeed_here, precision
    from olmoe_ft.recipe.schema import Recipe

    gpu = torch.cuda.is_available()
    capability = torch.cuda.get_device_capability(0) if gpu and torch.version.cuda else None
    triton = find_spec("triton") is not None
    kernel = kernel_for(capability, torch.bfloat16, RELEASED_SIZES, triton) if gpu else None
    experts = {"torch": "torch's grouped kernel", "triton": "olmoe_ft's Triton kernel", None: "one after the other"}
    yield f"experts: {experts[kernel]}"
    if gpu and kernel is None:
        remedy = "" if triton else "; run pip install triton"
        findings.append(f"no kernel multiplies all experts at once on this card, which makes steps slow{remedy}")
    packed = "torch's variable-length kernel (FlashAttention 2)" if gpu else "a mask"
    flash = "" if find_spec("flash_attn") else ", flash_attention_2 is not installed"
    yield f"attention: sdpa, packed rows by {packed}{flash}"
    model = {"config": "model.json", "tokenizer": "tokenizer", "dtype": "bfloat16"}
    router = {"load_balancing_coef": 0.0, "z_loss_coef": 0.0, "train": "full"}
    recipe = Recipe.model_validate({**LIGHT, "model": model, "router": router})
    yield f"optimizer: {precision(recipe, deepspeed_here())}"
    where = (
        "in this launch"
        if "WORLD_SIZE" in os.environ
        else "in one process; under DeepSpeed, DeepSpeed keeps the master weights"
    )
    yield f"  ({where})"


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"


def _revision() -> str:
    """The git revision of the checkout that the code runs from."""
    from olmoe_ft.training.launch_record import git_revision

    return git_revision() or "none (not in a checkout)"
