"""What a launch may not ask for, in accelerate's file or in the environment that `accelerate launch` makes of it."""

from collections.abc import Mapping
from typing import Any

from olmoe_ft.recipe.errors import UserError
from olmoe_ft.recipe.schema import Recipe

SHARDS = ("tp", "cp", "sp", "dp_shard", "dp_replicate")  # accelerate's kinds of parallelism, each with a size
INSTEAD = "launch with configs/accelerate/zero2.yaml or zero3.yaml"
ARITHMETIC = {"float32": ("no",), "bfloat16": ("no", "bf16")}


def check_shards(where: str, sizes: Mapping[str, Any]) -> None:
    """Refuse sequence, context and tensor parallelism: attention here would see a part of a row and take it for all.

    Args:
        where: the file, or the environment.
        sizes: accelerate's `parallelism_config`, or the variables made of it, whatever is before the names in SHARDS.
    Raises:
        UserError: one of the sizes is not 1.
    """
    for key, size in sizes.items():
        kind = key.lower().removeprefix("parallelism_config_").removesuffix("_size")
        if kind in SHARDS and str(size) != "1":
            raise UserError(
                f"{where}: {key} is {size}, but attention and losses here need whole rows and weights; remove it, "
                f"and {INSTEAD}"
            )


def check_environment(environment: Mapping[str, str]) -> None:
    """Refuse a launch by FSDP, by Megatron-LM, or that shards rows.

    Raises:
        UserError: it is one.
    """
    if environment.get("ACCELERATE_USE_FSDP") == "true":
        raise UserError(
            "accelerate: FSDP is not supported (it was never tried here, and would shard weights that the optimizer "
            f"reads whole); {INSTEAD}"
        )
    if environment.get("ACCELERATE_USE_MEGATRON_LM") == "true":
        raise UserError(f"accelerate: Megatron-LM is not supported, which trains networks of its own; {INSTEAD}")
    check_shards("the environment", environment)


def check_mixed_precision(recipe: Recipe, mixed: str, where: str) -> None:
    """Refuse an arithmetic of accelerate's that is not the recipe's.

    Raises:
        UserError: `mixed_precision` says something else than `model.dtype`.
    """
    if mixed not in ARITHMETIC[recipe.model.dtype]:
        raise UserError(
            f"{where}: mixed_precision is {mixed}, but model.dtype is {recipe.model.dtype} and decides the arithmetic; "
            "set mixed_precision: 'no' there, or change model.dtype"
        )
