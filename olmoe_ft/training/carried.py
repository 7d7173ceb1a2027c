"""What a run keeps over a restart besides weights, optimizer, schedule and random numbers: its sums and counts.

With them the records of a run that was stopped equal those of one that was not. Every process keeps its own part.
Mixins and callbacks with something to keep return it from `carried()` and restore it in `carry_on(kept, same_shape)`.
"""

import time
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from transformers import Trainer, TrainerCallback


@runtime_checkable
class Carries(Protocol):
    def carried(self) -> dict[str, Any]:
        """Tensors, numbers, texts, and lists and dictionaries of them."""

    def carry_on(self, kept: dict[str, Any], same_shape: bool) -> None:
        """Restore what `carried` returned.

        Args:
            same_shape: whether it is from this process; otherwise it is from the first process of a launch with another
                number of processes, and the sums of a single process must not be used.
        """


class CarriedMixin(Trainer):
    """Must come after the other mixins and before a TRL trainer; collects the parts of mixins and callbacks."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.resume_from: Path | None = None
        self._tr_loss: Any
        self._began, self._seconds_before = 0.0, 0.0

    def train(self, resume_from_checkpoint: str | None = None, *args: Any, **kwargs: Any) -> Any:
        self.resume_from = Path(resume_from_checkpoint) if resume_from_checkpoint else None
        if self.resume_from is not None:
            self.args.eval_on_start = False  # it was done already, and is in the records
        self.add_callback(_TakeBack(self))
        return super().train(resume_from_checkpoint, *args, **kwargs)

    def carried(self) -> dict[str, Any]:
        return {
            "loss": self._tr_loss,
            "total_loss": self._total_loss_scalar,
            "last_logged": self._globalstep_last_logged,
            "metrics": {name: list(values) for name, values in self._metrics["train"].items()},  # TRL's
            "tokens": self._total_train_tokens,
            "seconds": self._seconds_before + time.time() - self._began,
        }

    def carry_on(self, kept: dict[str, Any], same_shape: bool) -> None:
        self._initial_global_step = 0  # the final figures are those of the whole run
        self._total_loss_scalar = kept["total_loss"]
        self._total_train_tokens = kept["tokens"]
        self._seconds_before = kept["seconds"]
        if same_shape:
            self._tr_loss = kept["loss"].to(self._tr_loss.device)
            self._globalstep_last_logged = kept["last_logged"]
            self._metrics["train"].update(kept["metrics"])

    def write_carried(self, folder: Path) -> None:
        kept = {name: part.carried() for name, part in self._parts().items()}
        torch.save(kept, folder / _name(self.accelerator.process_index))

    def take_back(self) -> None:
        """Restore everything before the first step of this launch."""
        self._began = time.time()
        if self.resume_from is None:
            return
        self.model.train()  # a step would do this; TRL uses the mode to file the figures of a run that has no step left
        own = self.resume_from / _name(self.accelerator.process_index)
        same_shape = len(list(self.resume_from.glob(_name("*")))) == self.accelerator.num_processes
        kept = torch.load(own if same_shape else self.resume_from / _name(0), map_location="cpu", weights_only=True)
        for name, part in self._parts().items():
            if name in kept:
                part.carry_on(kept[name], same_shape)

    def _parts(self) -> dict[str, Carries]:
        callbacks = [callback for callback in self.callback_handler.callbacks if isinstance(callback, Carries)]
        return {"trainer": self, **{type(callback).__name__: callback for callback in callbacks}}

    def _finalize_training(self, trial: Any, num_train_samples: int, start_time: float) -> Any:
        return super()._finalize_training(trial, num_train_samples, start_time - self._seconds_before)


class _TakeBack(TrainerCallback):
    """The last callback at the start of training, after transformers has set its sums to 0."""

    def __init__(self, trainer: CarriedMixin) -> None:
        self.trainer = trainer

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.trainer.take_back()


def _name(process: int | str) -> str:
    return f"carried_{process}.pt"
