"""The bytes that a run writes: one checkpoint, how many are on the disk at once, `base/` and `final/`.

What is in a checkpoint (transformers 5.23, DeepSpeed 0.19.8), with weights W, trained weights T and their number n:

    one process, or several without DeepSpeed:  W (with LoRA: T) + the optimizer's states
    ZeRO-1 and 2:  W twice (LoRA: T twice), for stock loaders and for DeepSpeed + 4 n + states of n fp32 numbers
    ZeRO-3:        W (LoRA: T) + 4 n + states of n fp32 numbers
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from transformers import TrainingArguments

from olmoe_ft.constants import GIB, MIB
from olmoe_ft.model import OlmoeConfig
from olmoe_ft.reasons import one_line
from olmoe_ft.recipe import Recipe, UserError
from olmoe_ft.training.files import free_space
from olmoe_ft.training.optimizer.moved import SAMPLE
from olmoe_ft.training.optimizer.states import optimizer_with_states, states_of
from olmoe_ft.training.outline import adapted, outline
from olmoe_ft.training.run_directory import RunDirectory
from olmoe_ft.training.start import needs_base
from olmoe_ft.training.steps import Steps

FP32 = 4
FILES = 25_000  # tokenizer, configuration and arguments, in each folder
PROCESS = 15_000  # random states of a process
SCRIPTS, SHARD = 42_000, 25_000  # what DeepSpeed writes besides numbers: once, and for each process
TENSOR = 250  # header bytes for each tensor in a file


@dataclass(frozen=True)
class Folders:
    """Bytes of one folder of each kind."""

    checkpoint: int
    base: int
    final: int


@dataclass(frozen=True)
class Space:
    """Bytes on the disk."""

    checkpoint: int
    kept: int
    """Checkpoints that are kept."""
    rotates: bool
    """Whether one more is written before the oldest is removed."""
    base: int
    final: int

    @property
    def peak(self) -> int:
        """The most bytes on the disk at once; `final/` and a checkpoint are never written at the same time."""
        return self.base + self.kept * self.checkpoint + max(self.rotates * self.checkpoint, self.final)

    def __str__(self) -> str:
        many = f"{self.kept} checkpoint{'' if self.kept == 1 else 's'} of {amount(self.checkpoint)}"
        parts = [many + (" and one that is being written" if self.rotates else "")] if self.kept else []
        parts += [f"base/ {amount(self.base)}"] if self.base else []
        return f"{amount(self.peak)} at most: {', '.join(parts)}{', ' if parts else ''}final/ {amount(self.final)}"


def amount(size: int) -> str:
    return f"{size / GIB:.1f} GiB" if size >= GIB else f"{size / MIB:.1f} MiB"


def space_of(
    recipe: Recipe, config: OlmoeConfig, arguments: TrainingArguments, steps: Steps, zero: int | None, processes: int
) -> Space:
    """What a run will write; arguments as for `folders_of`."""
    one = folders_of(recipe, config, arguments, zero, processes)
    kept, rotates = _kept(arguments, steps)
    return Space(one.checkpoint, kept, rotates, one.base, one.final)


def folders_of(
    recipe: Recipe, config: OlmoeConfig, arguments: TrainingArguments, zero: int | None, processes: int
) -> Folders:
    """The size of each folder that a run writes; it does not depend on the number of steps.

    Args:
        zero: the stage of ZeRO, None without DeepSpeed (`zero_stage` of a launch).
    """
    network = outline(recipe, config)
    whole = _bytes(network.parameters())
    policy = adapted(recipe, network)
    trained = [weight for weight in policy.parameters() if weight.requires_grad]
    itemsize = network.dtype.itemsize
    saved = whole if recipe.lora is None else _bytes(trained)
    small = FILES + TENSOR * len(trained if recipe.lora else [*policy.parameters()])
    sampled = FP32 * min(SAMPLE, sum(weight.numel() for weight in trained) // processes)  # for `optim/moved`
    beside = FILES + (PROCESS + sampled) * processes + (0 if zero is None else SCRIPTS + SHARD * processes)
    if getattr(arguments, "sync_ref_model", False):
        beside += whole  # a reference that moves
    if zero is None:
        states = _states(arguments, policy, trained, deepspeed=False)
        written = saved + _bytes(states) + TENSOR * len(states)
    else:
        count = sum(weight.numel() for weight in trained)
        saved = whole if recipe.lora is None else count * itemsize  # DeepSpeed keeps adapters in the network's dtype
        flat = nn.Parameter(torch.empty(count, device="meta"))
        states = _states(arguments, policy, [flat], deepspeed=True)
        written = saved * (1 if zero == 3 else 2) + FP32 * count + _bytes(states)
    base = whole + FILES if needs_base(recipe) else 0
    return Folders(written + small + beside, base, final=saved + small)


def check_space(run: RunDirectory, space: Space) -> None:
    """Check that a run fits on the disk; what an earlier launch of it has written counts as done.

    Raises:
        UserError: it does not fit.
    """
    folders = (*run.checkpoints.newest_first(), run.base, run.final)  # without renamed damaged ones
    written = [file for folder in folders for file in folder.rglob("*")]
    there = sum(file.stat().st_size for file in written if file.is_file())
    if (free := free_space(run.path)) < space.peak - there:
        limit = run.recipe.training.get("save_total_limit")
        raise UserError(
            f"{run.path}: the run needs {space}; found {amount(there)} of it written and {amount(free)} free; free "
            "some "
            f"space, make runs/ a link to another disk, or lower training.save_total_limit (now {limit or 'none'})"
        )


def why_not_saved(run: RunDirectory, space: Space, error: BaseException) -> str:
    """The message for a file of a run that could not be written because the disk is full."""
    free = free_space(run.path)
    found = f"a checkpoint needs {amount(space.checkpoint)}, and {amount(free)} are free"
    if free > space.checkpoint:
        return f"{run.path}: {one_line(error)}; {found}, so check your quota and `ulimit -f`"
    return (
        f"{run.path}: no space left; {found}; free some space or lower training.save_total_limit, and start the "
        "run again"
    )


def _kept(arguments: TrainingArguments, steps: Steps) -> tuple[int, bool]:
    every = {"no": math.inf, "steps": _steps(arguments.save_steps, steps), "epoch": steps.per_epoch}
    every["best"] = _steps(arguments.eval_steps, steps) if arguments.eval_strategy == "steps" else steps.per_epoch
    saves = 0 if arguments.save_strategy == "no" else math.ceil(steps.steps / every[arguments.save_strategy.value])
    limit = arguments.save_total_limit or saves
    if arguments.load_best_model_at_end or arguments.metric_for_best_model is not None:
        limit = max(limit, 2)  # the newest and the best
    return min(limit, saves), limit < saves


def _steps(every: float | None, steps: Steps) -> float:
    """A number below 1 is a share of all steps."""
    assert every
    return every if every >= 1 else math.ceil(every * steps.steps)


def _states(arguments: TrainingArguments, policy: nn.Module, weights: list[Tensor], deepspeed: bool) -> list[Tensor]:
    with FakeTensorMode():
        fake: list[Tensor] = [nn.Parameter(torch.empty(weight.shape, dtype=weight.dtype)) for weight in weights]
        try:
            return states_of(optimizer_with_states(arguments, policy, fake, deepspeed))
        except UserError:  # it reads values, so it cannot run here: use AdamW's states, which are as large as any
            return [torch.empty(weight.shape) for weight in weights for _ in range(2)]


def _bytes(tensors: Iterable[Tensor]) -> int:
    return sum(tensor.nbytes for tensor in tensors)
