"""What a stage runs on: processes, device, precision, and the arguments TRL's trainers take."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import trl
from transformers import TrainingArguments
from transformers.integrations import deepspeed as hf_deepspeed

from olmoe_ft.reasons import one_line
from olmoe_ft.recipe import Recipe, UserError
from olmoe_ft.recipe.metrics import direction
from olmoe_ft.stages import TrainerArguments
from olmoe_ft.training.run_directory import RunDirectory
from olmoe_ft.training.watch import STILL, watch_ranks

# What the pipeline itself decides; the recipe may not name these (olmoe_ft.recipe.options.refused).
OWNED = {
    "report_to": "none",  # olmoe_ft.training.tracking writes the records
    "router_aux_loss_coef": 0.0,  # olmoe_ft.objective adds the router losses
    "logging_nan_inf_filter": False,  # olmoe_ft.training.finite stops at such a number; nothing is logged as another
}

# seconds that torch lets a rank wait for others; it cannot tell one that hangs from one that saves 100 GB, as
# olmoe_ft.training.watch does
COLLECTIVE = 1800
FLOATS = ("learning_rate", "weight_decay", "adam_beta1", "adam_beta2", "adam_epsilon")  # torch refuses 0 beside 0.9


def training_arguments(recipe: Recipe, run: RunDirectory) -> TrainerArguments:
    """TRL's configuration of a stage: the recipe's `training` section and what follows from the machine.

    Building it starts the process group, and under ZeRO-3 makes every later `from_pretrained` load shards.

    Raises:
        UserError: TRL or transformers refuses a combination of values.
    """
    accelerator_there = torch.accelerator.is_available()
    under_deepspeed = os.environ.get("ACCELERATE_USE_DEEPSPEED") == "true"
    processes_talk = under_deepspeed or int(os.environ.get("WORLD_SIZE", "1")) > 1
    machine: dict[str, Any] = {
        "ddp_backend": "gloo" if processes_talk and not accelerator_there else None,
        # every trained weight has a gradient; looking for others fails with adapters and reentrant checkpointing
        "ddp_find_unused_parameters": False,
        # DeepSpeed refuses transformers' CPU switch, and runs on a CPU without it
        "use_cpu": not accelerator_there and not under_deepspeed,
        "dataloader_pin_memory": accelerator_there,
    }
    stage: dict[str, Any] = {"bf16": recipe.model.dtype == "bfloat16"}
    stage |= {name: float(recipe.training[name]) for name in FLOATS if recipe.training.get(name) is not None}
    still = float(recipe.training.get("ddp_timeout") or STILL)
    stage["ddp_timeout"] = max(COLLECTIVE, int(still))
    config = getattr(trl, recipe.kind.config)
    if (metric := recipe.training.get("metric_for_best_model")) is not None:
        machine["greater_is_better"] = direction(recipe.stage, metric)  # unless the recipe has to say it
    try:
        arguments = config(output_dir=str(run.checkpoints.path), **{**machine, **recipe.training, **stage, **OWNED})
    except (ValueError, TypeError, NotImplementedError, ImportError) as error:
        raise UserError(f"training: {one_line(error)}") from None
    watch_ranks(still)
    keep_to_one_gpu(arguments)
    return arguments


def keep_to_one_gpu(arguments: TrainingArguments) -> None:
    """A process works on one GPU. transformers would copy the network to all it sees in every step (DataParallel), with
    larger micro-batches than the recipe's, and the router's losses of the copies would be lost."""
    if arguments.n_gpu > 1:
        arguments._n_gpu = 1


def idle_gpus(processes: int) -> str | None:
    """A sentence about GPUs of this machine that no process of the launch works on; None where there are none."""
    here = int(os.environ.get("LOCAL_WORLD_SIZE", processes))
    if not torch.accelerator.is_available() or (seen := torch.accelerator.device_count()) <= here:
        return None
    return (
        f"{here} of {seen} GPUs here work on this run; `accelerate launch --config_file configs/accelerate/zero2.yaml "
        f"--num_processes {seen} -m olmoe_ft train …` uses all, CUDA_VISIBLE_DEVICES hides those of others"
    )


@contextmanager
def whole_weights(arguments: TrainingArguments) -> Iterator[None]:
    """Within the block `from_pretrained` gives each process a whole model, under ZeRO-3 too."""
    hf_deepspeed.unset_hf_deepspeed_config()
    try:
        yield
    finally:
        # what the plugin keeps alive is what transformers had looked at
        if (plugin := arguments.deepspeed_plugin) is not None and plugin.dschf is not None:
            hf_deepspeed.set_hf_deepspeed_config(plugin.dschf)


def zero_stage(arguments: TrainingArguments) -> int | None:
    """The stage of ZeRO in this launch; None without DeepSpeed."""
    config = deepspeed_config(arguments)
    return None if config is None else config.get("zero_optimization", {}).get("stage", 0)


def deepspeed_config(arguments: TrainingArguments) -> dict[str, Any] | None:
    """DeepSpeed's configuration of this launch; None without DeepSpeed."""
    plugin = arguments.deepspeed_plugin
    return None if plugin is None else plugin.hf_ds_config.config
