"""Launch settings that are refused, in accelerate's file or in the environment variables it turns into."""

from collections.abc import Mapping
from typing import Any

from olmoe_ft.recipe.errors import UserError
from olmoe_ft.recipe.schema import Recipe

SHARDS = ("tp", "cp", "sp", "dp_shard", "dp_replicate")  # accelerate's kinds of parallelism, each with a size
INSTEAD = "launch with configs/accelerate/zero2.yaml or zero3.yaml"
ARITHMETIC = {"float32": ("no",), "bfloat16": ("no", "bf16")}


def check_shards(where: str, sizes: Mapping[str, Any]) -> None:
    """Refuse sequence, context and tensor parallelism: attention here would see part of a row as if it were all of it.

    Args:
        where: the file, or the environment.
        sizes: accelerate's `parallelism_config`, or its environment variables; any prefix before the names in SHARDS.
    Raises:
        UserError: one of the sizes is not 1.
    """
    for key, size in sizes.items():
        kind = key.lower().removeprefix("parallelism_config_").removesuffix("_size")
        if kind in SHARDS and str(size) != "1":
            raise UserError(
                f"{where}: found {key} {size}; allowed: 1, because attention and losses here need whole rows and "
                "weights; "
                f"remove it, and {INSTEAD}"
            )


def check_environment(environment: Mapping[str, str]) -> None:
    """Refuse a launch under FSDP or Megatron-LM, or one that shards rows.

    Raises:
        UserError: it is such a launch.
    """
    if environment.get("ACCELERATE_USE_FSDP") == "true":
        raise UserError(
            "accelerate: FSDP is not supported (it is untested here, and it shards weights that the optimizer "
            f"needs whole); {INSTEAD}"
        )
    if environment.get("ACCELERATE_USE_MEGATRON_LM") == "true":
        raise UserError(f"accelerate: Megatron-LM is not supported, because it trains its own networks; {INSTEAD}")
    check_shards("the environment", environment)


def check_mixed_precision(recipe: Recipe, mixed: str, where: str) -> None:
    """Refuse a `mixed_precision` of accelerate's that contradicts the recipe.

    Raises:
        UserError: `mixed_precision` does not match `model.dtype`.
    """
    if mixed not in ARITHMETIC[recipe.model.dtype]:
        raise UserError(
            f"{where}: found mixed_precision {mixed}, but model.dtype is {recipe.model.dtype}, which decides the "
            "precision; "
            "set mixed_precision: 'no' there, or change model.dtype"
        )
