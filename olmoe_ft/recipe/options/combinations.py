"""Rules between the options of a stage: problems that are refused, and notes about options without effect."""

from collections.abc import Iterator
from contextlib import suppress

from olmoe_ft.recipe.options.evaluation import broken_evaluation, unread_by_strategy
from olmoe_ft.recipe.options.given import Given, Unsettled
from olmoe_ft.recipe.options.optimizers import broken_optimizer, unread_by_optimizer
from olmoe_ft.recipe.options.schedules import broken_schedule
from olmoe_ft.recipe.wording import Problem, nearest, shown
from olmoe_ft.stages import STAGES

CHECKPOINTING = ("activation_checkpointing", "gradient_checkpointing")
CHECKPOINT_ARGUMENTS = ("use_reentrant", "preserve_rng_state", "determinism_check", "debug", "early_stop", "selective")
REENTRANT_ARGUMENTS = ("use_reentrant", "preserve_rng_state")
WORKER_OPTIONS = ("dataloader_persistent_workers", "dataloader_prefetch_factor", "dataloader_multiprocessing_context")
COMPILERS = ("torch_compile_backend", "torch_compile_mode")


def broken_combinations(given: Given) -> Iterator[Problem]:
    """Every conflict between options that are each valid by themselves."""
    for rule in (*RULES, *STAGES[given.stage].rules()):
        with suppress(Unsettled):
            yield from rule(given)


def unread(given: Given) -> Iterator[Problem]:
    """Options that differ from their default but change nothing, given the others."""
    yield from unread_by_optimizer(given)
    yield from unread_by_strategy(given)
    checkpoints = given[CHECKPOINTING[1]] if given[CHECKPOINTING[0]] is None else given[CHECKPOINTING[0]]
    for name in (f"{name}_kwargs" for name in CHECKPOINTING):
        if given.changed(name) and not checkpoints:
            yield name, "gradient_checkpointing is false"


def _arithmetic(given: Given) -> Iterator[Problem]:
    half = given["bf16"]
    if half is not None and half != (given.dtype == "bfloat16"):
        yield "bf16", f"found {shown(half)} with model.dtype {given.dtype}, which decides the precision; remove it"
    for name in COMPILERS:
        if given[name] is not None and not given["torch_compile"]:
            yield name, f"found {shown(given[name])} without `torch_compile: true`; add it, or remove this"


def _checkpointing(given: Given) -> Iterator[Problem]:
    new, old = (given[name] if name in given else None for name in CHECKPOINTING)
    if new is not None and old is not None and new != old:
        yield (
            CHECKPOINTING[0],
            f"found {shown(new)} and gradient_checkpointing (its old name) {shown(old)}; remove one of them",
        )
    names = [f"{name}_kwargs" for name in CHECKPOINTING if given[f"{name}_kwargs"]]
    if len(names) == 2:
        yield names[0], f"found together with {names[1]}, its old name; remove one of them"
    for name in names:
        arguments = given[name]
        reentrant = arguments.get("use_reentrant") is True
        known = list(REENTRANT_ARGUMENTS if reentrant else CHECKPOINT_ARGUMENTS)
        known = [key for key in known if key != "selective" or STAGES[given.stage].selective_checkpointing]
        for key, value in arguments.items():
            if key not in known:
                beside = " with use_reentrant: true" if reentrant and key in CHECKPOINT_ARGUMENTS else ""
                yield f"{name}.{key}", f"unknown key{nearest(str(key), known)}; allowed{beside}: {', '.join(known)}"
            elif key == "determinism_check":
                if value not in ("default", "none"):
                    yield f"{name}.{key}", f"found {shown(value)}; allowed: default, none"
            elif not isinstance(value, bool):
                yield f"{name}.{key}", f"found {shown(value)}; allowed: true, false"


def _workers(given: Given) -> Iterator[Problem]:
    for name in WORKER_OPTIONS:
        if given[name] and not given["dataloader_num_workers"]:
            yield name, f"found {shown(given[name])} without workers; set `dataloader_num_workers`, or remove it"


RULES = (broken_schedule, broken_optimizer, broken_evaluation, _arithmetic, _checkpointing, _workers)
