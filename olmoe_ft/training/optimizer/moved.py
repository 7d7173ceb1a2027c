"""The share of trained weights that have changed since the last record, to see whether updates arrive."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from transformers import Trainer, TrainerCallback

from olmoe_ft.data.terminal import Console
from olmoe_ft.training.optimizer.adamw import Bf16AdamW
from olmoe_ft.training.optimizer.update import read_master

SAMPLE = 2**16  # weights that are compared
FEW = 0.01  # something is wrong below this share
# DeepSpeed's fp32 weights: of ZeRO-2, of ZeRO-3, of ZeRO-0 and 1
DEEPSPEED = ("single_partition_of_fp32_groups", "fp32_partitioned_groups_flat", "fp32_groups_flat_partition")


class MovedCallback(TrainerCallback):
    """Adds `optim/moved` to every record of training steps, and warns once if it is below 1%.

    It compares a fixed sample of the numbers that the optimizer updates: the weights (with their remainders in
    olmoe_ft's AdamW), or DeepSpeed's fp32 copies of this process's shard. So a step that is too small for plain bf16
    counts, and one that is lost does not. Must come before the callbacks that write records.
    """

    def __init__(self, trainer: Trainer) -> None:
        self.trainer = trainer
        self.warned = False

    def on_train_begin(self, args, state, control, **kwargs):
        self.sample = list(_sample(self.trainer))
        self.before = self._look() if self.sample else torch.zeros(0)
        self.highest_rate = 0.0

    def on_step_begin(self, args, state, control, optimizer=None, **kwargs):
        self.highest_rate = max(self.highest_rate, *(float(group["lr"]) for group in optimizer.param_groups))

    def on_log(self, args, state, control, logs=None, **kwargs):
        if "loss" not in logs or not self.sample:
            return
        now = self._look()
        changed = self.trainer.accelerator.reduce((now != self.before).float().mean(), reduction="mean").item()
        logs["optim/moved"] = changed
        if changed < FEW and self.highest_rate > 0 and not self.warned:
            self.warned = True
            if state.is_world_process_zero:
                Console().print(
                    f"[yellow]warning:[/] optim/moved: {changed:.2%} of the trained weights changed since the last "
                    f"record, at a learning rate of {self.highest_rate:.3g}. The rest got no gradient, or updates that "
                    "are too small for the dtype of the weights; check training.learning_rate, "
                    "training.optim and the gradient's norm",
                    soft_wrap=True,
                )
        self.before, self.highest_rate = now, 0.0

    def carried(self) -> dict[str, Any]:
        return {"before": self.before, "highest_rate": self.highest_rate, "warned": self.warned}

    def carry_on(self, kept: dict[str, Any], same_shape: bool) -> None:
        self.highest_rate, self.warned = kept["highest_rate"], kept["warned"]
        if same_shape:
            self.before = kept["before"].to(self.before.device)

    def _look(self) -> Tensor:
        return torch.cat([read() for read in self.sample])


def _sample(trainer: Any) -> Iterator[Any]:
    """Functions that each read part of the sample, as fp32; every weight contributes the same share."""
    optimizer = trainer.optimizer
    while hasattr(optimizer, "optimizer") and not any(hasattr(optimizer, name) for name in DEEPSPEED):
        optimizer = optimizer.optimizer  # accelerate's wrapper
    shards = next((getattr(optimizer, name) for name in DEEPSPEED if hasattr(optimizer, name)), None)
    weights = shards or [weight for weight in trainer.model.parameters() if weight.requires_grad]
    share = min(1.0, SAMPLE / max(1, sum(weight.numel() for weight in weights)))
    generator = torch.Generator().manual_seed(0)
    for weight in weights:
        if count := min(weight.numel(), round(weight.numel() * share + 0.5)):
            places = torch.randint(weight.numel(), (count,), generator=generator).to(weight.device)
            yield lambda weight=weight, places=places: _read(optimizer, weight, places)


def _read(optimizer: Any, weight: Tensor, places: Tensor) -> Tensor:
    values = weight.detach().view(-1)[places]
    if isinstance(optimizer, Bf16AdamW) and "remainder" in optimizer.state.get(weight, {}):
        return read_master(values, optimizer.state[weight]["remainder"].view(-1)[places])
    return values.float()
