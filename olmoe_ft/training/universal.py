"""Continue a checkpoint with another number of processes; for ZeRO, through DeepSpeed's universal checkpoint.

ZeRO's files are the shards of the processes that wrote them. DeepSpeed's converter joins the weights and moments of
every parameter, and its engine shards them again
(https://www.deepspeed.ai/tutorials/universal-checkpointing/):

    UniversalMixin._prepare_for_training -> convert     the first process, into a temporary folder
                                         -> load        every process loads its shard

The checkpoint itself is not changed. Universal checkpoints of ZeRO-2 and ZeRO-3 differ: neither continues as the other.
"""

import copy
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch
from transformers import set_seed

from olmoe_ft.recipe import RunError
from olmoe_ft.training.saving import SavingMixin


class UniversalMixin(SavingMixin):
    """A trainer that can continue from a checkpoint of more or fewer processes than it has."""

    def remark(self, checkpoint: Path) -> str | None:
        """A sentence for users about continuing with another number of processes; None if the number is the same."""
        before, now = processes_of(checkpoint), self.accelerator.num_processes
        if before == now:
            return None
        shards = f"the shards of {before} process(es) are joined and split for {now}; "
        return (
            f"{shards if self.is_deepspeed_enabled else ''}random numbers (dropout) start again from training.seed and "
            "the step, different in every process"
        )

    def _prepare_for_training(self, max_steps: int, train_dataloader: Any, resume_from_checkpoint: str | None) -> Any:
        checkpoint = Path(resume_from_checkpoint) if resume_from_checkpoint else None
        if checkpoint is None or not self.is_deepspeed_enabled or self.remark(checkpoint) is None:
            return super()._prepare_for_training(max_steps, train_dataloader, resume_from_checkpoint)
        prepared = super()._prepare_for_training(max_steps, train_dataloader, None)
        folder = self.checkpoints.aside / "universal"
        try:
            if self.is_world_process_zero():
                convert(checkpoint, folder)
            self.accelerator.wait_for_everyone()
            load(self.model_wrapped, folder)
            self.accelerator.wait_for_everyone()
        finally:
            if self.is_world_process_zero():
                self.checkpoints.tidy()
        self._load_optimizer_and_scheduler(resume_from_checkpoint)  # under DeepSpeed only the scheduler
        return prepared

    def _load_rng_state(self, checkpoint: str | None) -> None:
        """Seed again for another number of processes: transformers would silently reuse the seed's first numbers."""
        if checkpoint is None or self.remark(Path(checkpoint)) is None:
            super()._load_rng_state(checkpoint)
        else:
            set_seed(self.args.seed + self.state.global_step + self.accelerator.process_index)


def processes_of(checkpoint: Path) -> int:
    """The number of processes that wrote a checkpoint; each has saved the state of its random numbers."""
    return len(list(checkpoint.glob("rng_state*.pth")))


def convert(checkpoint: Path, into: Path) -> None:
    """Write the universal form of a checkpoint's `global_stepN/` into a new folder.

    DeepSpeed's converter uses a pool of forked processes, so it runs in a separate process: this one has threads.

    Raises:
        RunError: the disk is too full, or DeepSpeed cannot convert the checkpoint.
    """
    (shards,) = checkpoint.glob("global_step*/")
    same = f"continue with {processes_of(checkpoint)} process(es) as before"
    # all numbers of the optimizer are written twice: in pieces, then joined
    needed = sum(file.stat().st_size * (2 if "_optim_" in file.name else 1) for file in shards.iterdir())
    into.mkdir(parents=True)
    if (free := shutil.disk_usage(into).free) < needed:
        raise RunError(
            f"{checkpoint}: to continue with another number of processes, {needed:,} more bytes are needed until the "
            f"first step, but {free:,} are free; free some space, or {same}"
        )
    places = ("--input_folder", str(shards), "--output_folder", str(into / shards.name))
    # checkpoints written through transformers lack `universal_checkpoint_info` (DeepSpeed#7200)
    command = [sys.executable, "-m", "olmoe_ft.checkpoints.convert", *places, "--inject_missing_state"]
    result = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
    if result.returncode:
        reason = (result.stderr.strip() or f"exit code {result.returncode}").splitlines()[-1]
        raise RunError(f"{checkpoint}: DeepSpeed cannot convert it for another number of processes ({reason}); {same}")


def load(engine: Any, folder: Path) -> None:
    """Load a DeepSpeed engine's shard of a universal checkpoint, and correct what DeepSpeed 0.19 gets wrong.

    Under ZeRO-3 it gives every parameter group the options of the first one (so norms get weight decay), and lets all
    shards of a process share one step count, which then grows once for each of them. Under ZeRO-2 and ZeRO-3 the counts
    stay on the CPU, where torch's fused kernels on other devices cannot read them.
    """
    optimizer = engine.optimizer.optimizer
    options = [
        {name: value for name, value in group.items() if name not in ("params", "lr")}
        for group in optimizer.param_groups
    ]
    engine._config.load_universal_checkpoint = True
    try:
        loaded, _ = engine.load_checkpoint(str(folder))
    finally:
        engine._config.load_universal_checkpoint = False  # later checkpoints are ordinary ones
    assert loaded is not None
    for group, own in zip(optimizer.param_groups, options, strict=True):
        group.update(own)
    on_device = any(group.get("fused") or group.get("capturable") for group in optimizer.param_groups)
    for weights, values in optimizer.state.items():
        values["step"] = copy.deepcopy(values["step"])
        if on_device and torch.is_tensor(values["step"]):
            values["step"] = values["step"].to(weights.device)
