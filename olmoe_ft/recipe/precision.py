"""The dtype of weights, moments and gradients in training, and whether updates would be lost to rounding.

A weight in bf16 has 8 bits of precision: an update smaller than 2^-9 of the weight rounds to nothing. So something must
hold the trained weights in fp32. DeepSpeed does, and so does olmoe_ft's own optimizer (docs/optimizer.md), which
replaces transformers' default where DeepSpeed is not used.
"""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from olmoe_ft.recipe.errors import UserError
from olmoe_ft.recipe.mixed_precision import check_environment, check_shards
from olmoe_ft.recipe.schema import Recipe
from olmoe_ft.recipe.wording import shown

OWN = "olmoe_ft's AdamW"


class Precision(NamedTuple):
    """The dtypes used for the trained weights, in words."""

    weights: str
    master: str
    """What the optimizer adds its updates to."""
    moments: str
    gradients: str

    def __str__(self) -> str:
        return ", ".join(f"{name} {value}" for name, value in self._asdict().items())


def trains_bfloat16(recipe: Recipe) -> bool:
    """Whether bf16 weights are trained: all trained weights but PEFT's factors, which are in fp32 anyway."""
    return recipe.model.dtype == "bfloat16" and (recipe.lora is None or recipe.router.train == "full")


def precision(recipe: Recipe, deepspeed: bool) -> Precision:
    """The precision of a recipe on a machine.

    Args:
        deepspeed: whether DeepSpeed trains; it keeps adapters in bf16 too, with fp32 copies of all trained weights.
    """
    moments = f"as {optim} keeps them" if (optim := recipe.training.get("optim")) else "float32"
    if recipe.model.dtype == "float32" or not (deepspeed or trains_bfloat16(recipe)):
        return Precision("float32", "float32 (the weights)", moments, "float32")
    if deepspeed:
        gradients = "bfloat16, summed as data_types.grad_accum_dtype says (float32 in configs/deepspeed)"
        return Precision("bfloat16", "float32 (DeepSpeed)", moments, gradients)
    micro_batches = recipe.training.get("gradient_accumulation_steps", 1) > 1
    gradients = "bfloat16, summed in float32" if micro_batches else "bfloat16"
    own = Precision("bfloat16", "float32 (its upper half is the weight)", "16 bits for both", gradients)
    if recipe.lora is None:
        return own
    return Precision(*(f"{value} (routers) and float32 (adapters)" for value in own))


def check_optimizer(recipe: Recipe, deepspeed: bool, where: str) -> None:
    """Refuse an optimizer that would round away the updates of bf16 weights.

    Args:
        deepspeed: whether DeepSpeed holds fp32 copies of the trained weights.
        where: the machine, for the message.
    Raises:
        UserError: `training.optim` names one, and nothing else holds the weights in fp32.
    """
    optim = recipe.training.get("optim")
    if deepspeed or optim is None or not trains_bfloat16(recipe):
        return
    raise UserError(
        f"training.optim: found {shown(optim)} with model.dtype bfloat16 on {where}, where no float32 copy of the "
        "trained "
        f"weights exists: most updates would round to nothing; remove it to train with {OWN}, which keeps the lower "
        "half of every weight; or set model.dtype: float32; or launch with configs/accelerate/zero2.yaml or zero3.yaml"
    )


def deepspeed_here(environment: Mapping[str, str] | None = None) -> bool:
    """Whether this process was launched under DeepSpeed.

    Raises:
        UserError: FSDP or another launcher that is not supported, or a DeepSpeed configuration that cannot be read,
            keeps no fp32 copies or shards rows.
    """
    environment = os.environ if environment is None else environment
    check_environment(environment)
    if environment.get("ACCELERATE_USE_DEEPSPEED") != "true":
        return False
    if file := environment.get("ACCELERATE_DEEPSPEED_CONFIG_FILE"):
        try:
            settings = json.loads(Path(file).read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError) as error:
            remedy = (
                "name a file of configs/deepspeed/ (`olmoe-ft recipes copy configs/accelerate/zero3` writes one here)"
            )
            raise UserError(f"{file}: the DeepSpeed configuration cannot be read ({error}); {remedy}") from None
        check_deepspeed(file, settings)
    return True


def check_deepspeed(file: str, settings: Any) -> None:
    """Refuse a DeepSpeed configuration that keeps master weights in half precision, or shards rows or layers.

    Raises:
        UserError: it does, or it is not a configuration.
    """
    if not isinstance(settings, Mapping):
        raise UserError(f"{file}: not a DeepSpeed configuration; compare it with those in configs/deepspeed/")
    for section, key in (("bf16", "bf16_master_weights_and_grads"), ("fp16", "fp16_master_weights_and_grads")):
        found = settings.get(section, {})
        if isinstance(found, Mapping) and found.get(key):
            raise UserError(
                f"{file}: found {section}.{key}, with which most updates round to nothing; remove it to keep them in "
                "float32"
            )
    tensor_parallel = settings.get("tensor_parallel")
    tensor_parallel = tensor_parallel if isinstance(tensor_parallel, Mapping) else {}
    check_shards(
        file,
        {"sp_size": settings.get("sequence_parallel_size", 1), "tp_size": tensor_parallel.get("autotp_size", 1) or 1},
    )
