"""The machine that a recipe will run on: devices and sharding, read from an accelerate configuration."""

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from olmoe_ft.recipe import Recipe, UserError
from olmoe_ft.recipe.errors import gathered
from olmoe_ft.recipe.mixed_precision import check_mixed_precision, check_shards
from olmoe_ft.recipe.options.device import check_device
from olmoe_ft.recipe.paths import sought
from olmoe_ft.recipe.precision import check_deepspeed
from olmoe_ft.recipe.yaml_file import parse_value
from olmoe_ft.shipped import found

KINDS = {"NO": 0, "MULTI_GPU": 0, "MULTI_CPU": 0, "DEEPSPEED": None}


@dataclass(frozen=True)
class Machine:
    """Devices that train together, and which part of the model each of them keeps.

    Attributes:
        stage: of ZeRO (Rajbhandari et al. 2020): 0 shards nothing, 1 optimizer states, 2 gradients too, 3 weights too.
        offload_optimizer, offload_weights: kept in host memory instead.
        gpu: whether the devices are GPUs.
        deepspeed: whether DeepSpeed trains, with fp32 copies of the trained weights.
        bucket: elements of a buffer for reducing gradients, 0 if it is too small to count.
        live: the most elements of weights that ZeRO-3 keeps gathered.
        nodes: number of computers that the devices are in.
        mixed_precision: accelerate's name of the precision, "no" if the recipe decides.
        to_owner: whether ZeRO-1 and 2 send a gradient only to the device that keeps it, not to all.
    """

    name: str
    processes: int
    stage: int = 0
    gpu: bool = True
    deepspeed: bool = False
    offload_optimizer: bool = False
    offload_weights: bool = False
    bucket: int = 0
    live: int = 10**9
    nodes: int = 1
    to_owner: bool = False
    mixed_precision: str = "no"


def read_machine(file: str, processes: int | None = None) -> Machine:
    """The machine that an accelerate configuration describes.

    Args:
        processes: how many devices, instead of the file's number; ignored for a file for one device or several
            machines.
    Raises:
        UserError: the file is missing, or describes an unknown kind of machine.
    """
    settings = _read(file, parse_value)
    try:
        return _machine(file, settings, processes)
    except UserError:
        raise
    except (TypeError, ValueError, AttributeError) as error:
        raise UserError(
            f"{file}: not a readable configuration ({error}); compare it with those in configs/accelerate/"
        ) from None


def check_machine(recipe: Recipe, machine: Machine, file: str) -> None:
    """Refuse what a machine cannot do for a recipe, or would do in another precision.

    Raises:
        UserError: naming all of it.
    """
    messages: list[str] = []
    with gathered(messages):
        check_device(recipe, machine.gpu, file)
    with gathered(messages):
        check_mixed_precision(recipe, machine.mixed_precision, file)
    if messages:
        raise UserError(messages)


def _machine(file: str, settings: dict[str, Any], processes: int | None) -> Machine:
    check_shards(file, settings.get("parallelism_config") or {})
    kind = str(settings.get("distributed_type", "NO"))
    if kind not in KINDS:
        raise UserError(f"{file}: found distributed_type {kind}; allowed: {', '.join(KINDS)}")
    own = int(settings.get("num_processes", 1))
    nodes = int(settings.get("num_machines", 1))
    count = 1 if kind == "NO" else own if nodes > 1 else processes or own
    if count < 1:
        raise ValueError(f"found num_processes {count}; allowed: at least 1")
    name, gpu = Path(file).stem, not settings.get("use_cpu", False)
    mixed = str(settings.get("mixed_precision") or "no")
    if kind != "DEEPSPEED":
        return Machine(name, count, gpu=gpu, nodes=nodes, mixed_precision=mixed)
    inner = settings.get("deepspeed_config") or {}
    if (path := inner.get("deepspeed_config_file")) is None:
        raise UserError(
            f"{file}: found no deepspeed_config_file in deepspeed_config; name one, as in configs/accelerate/zero3.yaml"
        )
    check_deepspeed(path, settings := _read(path, json.loads))
    if (stage := settings.get("zero_optimization", {}).get("stage", 0)) not in range(4):
        raise UserError(f"{path}: found zero_optimization.stage {stage!r}; allowed: 0, 1, 2, 3")
    return sharded(Machine(name, count, gpu=gpu, nodes=nodes, mixed_precision=mixed), settings)


def sharded(machine: Machine, deepspeed: dict[str, Any]) -> Machine:
    """The same machine under DeepSpeed.

    Args:
        deepspeed: the content of a file of configs/deepspeed, or what DeepSpeed has made of it.
    """
    zero = deepspeed.get("zero_optimization", {})
    bucket = zero.get("reduce_bucket_size", int(5e8))
    return replace(
        machine,
        stage=zero.get("stage", 0),
        offload_optimizer=_offloads(zero, "offload_optimizer"),
        deepspeed=True,
        offload_weights=_offloads(zero, "offload_param"),
        bucket=0 if bucket == "auto" else int(bucket),
        live=_number(zero.get("stage3_max_live_parameters"), 10**9),
        to_owner=not zero.get("use_multi_rank_bucket_allreduce", True),
    )


def _offloads(zero: dict[str, Any], name: str) -> bool:
    return (zero.get(name) or {}).get("device", "none") != "none"


def _number(value: Any, default: int) -> int:
    return default if value in (None, "auto") else int(value)


def _read(file: str, parse: Any) -> dict[str, Any]:
    try:
        values = parse(Path(found(file)).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(
            f"{file}: there is no such file ({sought(file)}); `olmoe-ft recipes` lists those that come with olmoe_ft"
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        raise UserError(f"{file}: cannot be read ({reason}); name a file of configs/accelerate/") from None
    except (ValueError, RecursionError):
        raise UserError(f"{file}: not a readable configuration; compare it with those in configs/accelerate/") from None
    if not isinstance(values, dict):
        raise UserError(f"{file}: not a configuration of accelerate; name a file of configs/accelerate/")
    return values
