"""The smallest changes to a recipe or its machine that make it fit."""

from collections.abc import Iterator
from copy import copy
from dataclasses import dataclass, replace
from typing import Any

from olmoe_ft.model import OlmoeConfig
from olmoe_ft.planning.machine import Machine
from olmoe_ft.planning.measured_step import Batch, measure_step
from olmoe_ft.planning.memory import DeviceMemory, device_memory
from olmoe_ft.recipe import Recipe
from olmoe_ft.recipe.schema import Lora
from olmoe_ft.stages import TrainerArguments

MOST = 3  # changes to suggest
SHORTEST = 128  # tokens per row; shorter rows are never suggested
ADAPTERS = Lora.model_validate({"r": 16, "alpha": 32, "attention": True, "experts": True})


@dataclass(frozen=True)
class Variant:
    """A recipe as it is planned, and the changes to it so far."""

    recipe: Recipe
    checkpointing: bool
    precomputed: bool
    """Whether the reference's log-probabilities are precomputed, so that the reference is not kept."""
    batch: Batch
    machine: Machine
    changes: tuple[str, ...] = ()

    def changed(self, change: str, **fields: Any) -> "Variant":
        return replace(self, changes=(*self.changes, change), **fields)


def changes_that_fit(
    recipe: Recipe,
    config: OlmoeConfig,
    arguments: TrainerArguments,
    batch: Batch,
    machine: Machine,
    budget: float,
) -> Iterator[tuple[str, DeviceMemory]]:
    """Changes, the smallest first, with the memory that a device then needs; those that change the training come last.

    Args:
        budget: memory of a device, in GiB.
    """
    fitting: list[set[str]] = []
    precomputed = bool(getattr(arguments, "precompute_ref_log_probs", False))
    start = Variant(recipe, bool(arguments.gradient_checkpointing), precomputed, batch, machine)
    for variant in _variants(start):
        if any(fewer <= set(variant.changes) for fewer in fitting):
            continue
        settings = _settings(arguments, start, variant)
        step = measure_step(variant.recipe, config, settings, variant.batch, variant.machine.gpu)
        memory = device_memory(step, variant.machine, settings.gradient_accumulation_steps > 1)
        if memory.fits(budget):
            yield " and ".join(variant.changes), memory
            fitting.append(set(variant.changes))
        if len(fitting) == MOST:
            return


def _settings(arguments: TrainerArguments, start: Variant, variant: Variant) -> TrainerArguments:
    """The trainer's arguments of a variant, with the same number of rows in a step."""
    changed = copy(arguments)
    changed.gradient_checkpointing = variant.checkpointing
    if start.recipe.kind.has_reference:
        changed.precompute_ref_log_probs = variant.precomputed
    changed.gradient_accumulation_steps *= start.batch.rows // variant.batch.rows
    return changed


def _variants(start: Variant) -> Iterator[Variant]:
    """From the cheapest change to the largest."""
    quantized = start.recipe.model.quantization is not None  # ZeRO-3 cannot shard it
    if not start.checkpointing:
        start = start.changed("training.gradient_checkpointing=true", checkpointing=True)
        yield start
    with_reference = start  # for adapters, which need no precomputed reference
    moving = bool(start.recipe.training.get("sync_ref_model"))  # neither kept before training nor with adapters
    if start.recipe.kind.has_reference and start.recipe.lora is None and not (start.precomputed or moving):
        start = start.changed("training.precompute_ref_log_probs=true", precomputed=True)
        yield start
    smallest = _fewest_rows(start)
    if smallest is not start:
        yield smallest
    if start.machine.processes > 1 and start.machine.stage < 3 and not quantized:
        yield smallest.changed(
            "configs/accelerate/zero3.yaml", machine=replace(start.machine, name="zero3", stage=3, deepspeed=True)
        )
    adapted = smallest
    if start.recipe.lora is None and not moving:
        yield _adapted(with_reference)
        yield (adapted := _adapted(_fewest_rows(with_reference)))
    if not (start.machine.offload_optimizer and start.machine.offload_weights) and not quantized:
        offload = replace(
            start.machine,
            name="zero3-offload",
            stage=3,
            deepspeed=True,
            offload_optimizer=True,
            offload_weights=True,
        )
        yield start.changed("configs/accelerate/zero3-offload.yaml", machine=offload)
        yield smallest.changed("configs/accelerate/zero3-offload.yaml", machine=offload)
    if not quantized and start.machine.stage < 3:
        model = start.recipe.model.model_copy(update={"quantization": "nf4"})
        recipe = adapted.recipe.model_copy(update={"model": model})
        yield (adapted := adapted.changed("model.quantization=nf4", recipe=recipe))
    for share in (2, 4, 8):
        if (length := start.batch.length // share) >= SHORTEST:
            for variant in (smallest, adapted):
                shorter = variant.batch.cut(length, len(start.recipe.kind.sequences))
                yield variant.changed(f"training.max_length={length}", batch=shorter)


def _fewest_rows(variant: Variant) -> Variant:
    """As few rows as the stage allows, while a step of more micro-batches has as many as before."""
    fewest, rows = variant.recipe.kind.fewest_rows(variant.recipe.training), variant.batch.rows
    fewer = next((count for count in range(fewest, rows) if rows % count == 0), rows)
    if fewer == rows:
        return variant
    change = f"training.per_device_train_batch_size={fewer} (and {rows // fewer} times the gradient_accumulation_steps)"
    return variant.changed(change, batch=replace(variant.batch, rows=fewer))


def _adapted(variant: Variant) -> Variant:
    router = variant.recipe.router.model_copy(update={"train": "frozen"})
    recipe = variant.recipe.model_copy(update={"lora": ADAPTERS, "router": router})
    return variant.changed(
        '"lora={r: 16, alpha: 32, attention: true, experts: true}" router.train=frozen', recipe=recipe
    )
