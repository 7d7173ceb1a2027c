"""The reference where it moves with the policy (`training.sync_ref_model`, TR-DPO, Gorbatovski et al. 2024)."""

from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch

from olmoe_ft.training.carried import CarriedMixin

FILE = "reference.pt"


class MovingReferenceMixin(CarriedMixin):
    """Keeps the reference in checkpoints, where it is no longer the start's weights."""

    ref_model: Any

    def write_carried(self, folder: Path) -> None:
        super().write_carried(folder)
        if self.args.sync_ref_model:
            weights = self.accelerator.get_state_dict(self.ref_model)  # under ZeRO-3 of all shards, in one process
            if self.is_world_process_zero():
                torch.save(weights, folder / FILE)

    def take_back(self) -> None:
        super().take_back()
        if self.args.sync_ref_model and self.resume_from is not None:
            weights = torch.load(self.resume_from / FILE, map_location="cpu", weights_only=True)
            for name, weight in self.accelerator.unwrap_model(self.ref_model).named_parameters():
                with _whole(weight):
                    weight.data.copy_(weights[name])


def _whole(weight: torch.Tensor) -> Any:
    """Within the block a weight that is a shard under ZeRO-3 is whole; what the first process makes of it stays."""
    if not hasattr(weight, "ds_id"):
        return nullcontext()
    import deepspeed

    return deepspeed.zero.GatheredParameters([weight], modifier_rank=0)
