"""Check that the adapter learns, and nothing else: after the first step and at the end of a LoRA run."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import TrainerCallback

from olmoe_ft.checkpoints.base_model import fingerprint, note_base
from olmoe_ft.checkpoints.peft_names import ADAPTER, is_b_factor, is_factor
from olmoe_ft.recipe import UserError
from olmoe_ft.training.saving import SavingMixin


class AdapterChecks(TrainerCallback):
    """Every factor must get a gradient in the first step that has one, and no bit of the frozen weights may change.

    LoRA's usual initialisation sets B to 0. Then the first gradient of A is 0, as it should be, so only B is checked.
    """

    def __init__(self, trainer: SavingMixin, base: str) -> None:
        self.trainer = trainer
        self.fingerprint = fingerprint(base)  # now, because a Hub name may mean other weights later
        self.silent: dict[str, Any] = {}  # factors without a gradient so far, and their hooks
        self.learns = False
        trainer.beside.append(self.note)  # in every checkpoint

    def on_train_begin(self, args, state, control, **kwargs):
        self.before = self._frozen_bits()
        config = self.trainer.model.peft_config[ADAPTER]
        self.began_at = state.global_step
        # after a resume some of B may still be 0, so only B is checked
        both = state.global_step == 0 and config.init_lora_weights in (False, "orthogonal")
        for name, weight in self._factors():
            if both or is_b_factor(name):
                self.silent[name] = weight.register_hook(lambda gradient, name=name: self._heard(name, gradient))
        self.asked = list(self.silent)

    def on_step_end(self, args, state, control, **kwargs):
        """Check the gradients of all processes together; skip a step without any gradient (no row has an answer)."""
        if self.learns:
            return
        flags = torch.tensor([float(name not in self.silent) for name in self.asked], device=args.device)
        heard = self.trainer.accelerator.reduce(flags, reduction="sum").tolist()
        if not any(heard):
            return
        self.learns = True
        self._listen_no_more()
        if silent := [name for name, count in zip(self.asked, heard, strict=True) if not count]:
            raise UserError(
                f"lora: {len(silent)} of {len(heard)} factors got no gradient, first {silent[0]}; "
                "the forward pass does not use this adapter, so training would not change it; do not adapt this part"
            )

    def on_train_end(self, args, state, control, **kwargs):
        self._listen_no_more()
        if not self.learns and state.global_step > self.began_at:
            raise UserError("lora: no factor ever got a gradient; give rows with an answer to learn")
        after = self._frozen_bits()
        changed = [name for name, bits in after.items() if bits != self.before[name]]
        count = torch.tensor(len(changed), device=args.device)
        if int(self.trainer.accelerator.reduce(count, reduction="sum")):  # on any process: then all of them stop
            raise RuntimeError(
                f"lora: frozen weights have changed during training (here {changed[:3]}), so the adapter does not "
                "fit the base it names; it is not saved. Something writes into the base: check custom "
                "callbacks and the engine's settings"
            )

    def note(self, adapter: Path) -> None:
        """Note in a saved adapter's folder which weights it was trained on."""
        note_base(adapter, self.fingerprint)

    def _heard(self, name: str, gradient: Tensor) -> None:
        if name in self.silent and gradient.any():
            self.silent.pop(name).remove()

    def _listen_no_more(self) -> None:
        for handle in self.silent.values():
            handle.remove()
        self.silent.clear()

    def _factors(self) -> Iterator[tuple[str, nn.Parameter]]:
        for name, weight in self.trainer.model.named_parameters():
            if is_factor(name) and weight.requires_grad:
                yield name, weight

    def _frozen_bits(self) -> dict[str, int]:
        """A hash of the bits of every frozen weight: under ZeRO-3 of this process's shard, if quantized the bytes."""
        model = self.trainer.model
        frozen = {
            name: getattr(weight, "ds_tensor", weight.data)
            for name, weight in model.named_parameters()
            if not weight.requires_grad
        }
        frozen |= {name: packed for name, packed in model.named_buffers() if packed.dtype == torch.uint8}
        return {name: hash_of(bits) for name, bits in frozen.items() if bits.numel()}


def hash_of(tensor: Tensor) -> int:
    """A 64-bit hash of all bits of a tensor, by exclusive or.

    `torch.hash_tensor` (since torch 2.9, on CPU and CUDA) widens each number to 64 bits first, so bytes would share 8
    of them. Here the numbers are read as 64-bit words, or as the longest words that the tensor's size and offset allow.
    """
    flat = tensor.detach().flatten()
    length = (flat.numel() | int(flat.storage_offset())) * flat.itemsize
    word = next(word for word in (torch.int64, torch.int32, torch.int16, torch.uint8) if not length % word.itemsize)
    return int(torch.hash_tensor(flat.view(word)).view(torch.int64))
