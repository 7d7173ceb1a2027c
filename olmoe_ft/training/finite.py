"""Stop a run at a number that is not finite: in the loss or gradients before the optimizer step, or in weights before
they are saved."""

import math
from collections.abc import Callable
from typing import Any, NoReturn

import torch
from accelerate.utils import gather_object
from torch import Tensor
from transformers import Trainer
from transformers.trainer_utils import get_last_checkpoint

from olmoe_ft.model.finite import listed, not_finite
from olmoe_ft.recipe import RunError

Batch = dict[str, Any]


class NotFinite(RunError):
    """Training stopped before a number that is not finite could reach the weights or a checkpoint.

    Attributes:
        step: the optimizer step with that number, counted from 1.
        values: what the step's record shows, by metric.
    """

    def __init__(self, message: str, step: int, values: dict[str, float]) -> None:
        super().__init__(message)
        self.step, self.values = step, values


class FiniteMixin(Trainer):
    """Must come before a TRL trainer among the bases, and before mixins that add to its loss.

    Args:
        places_of: gives the places of a batch's rows in their sources.
    """

    def __init__(self, *args: Any, places_of: Callable[[Batch], list[str]], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._places_of = places_of
        self._seen: list[tuple[Tensor, Batch]] = []  # losses and batches of this step's micro-batches

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        loss = super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        if self.model.training:
            self._seen.append((loss.detach(), inputs))
            if self.accelerator.sync_gradients:  # before the last backward pass, in which DeepSpeed takes the step
                self._check_losses()
        return loss

    def _check_losses(self) -> None:
        losses = torch.stack([loss for loss, _ in self._seen])
        wrong = ~losses.isfinite()
        if self.accelerator.reduce(wrong.any().float()).item():  # on any process: then all of them stop
            found = zip(losses.tolist(), (batch for _, batch in self._seen), strict=True)
            self._stop("loss", [(loss, batch) for loss, batch in found if not math.isfinite(loss)])

    def _get_grad_norm(self, model: Any, grad_norm: Any = None) -> Any:
        """The norm over the gradients of all processes. DeepSpeed skips a step if this norm is not finite."""
        norm = super()._get_grad_norm(model, grad_norm=grad_norm)
        if norm is not None and not math.isfinite(float(norm)):
            self._stop("grad_norm", [(float(norm), batch) for _, batch in self._seen])
        self._seen.clear()
        return norm

    def _stop(self, metric: str, found: list[tuple[float, Batch]]) -> NoReturn:
        """Raise the same error on every process."""
        own = [(value, place) for value, batch in found for place in self._places_of(batch)]
        together = gather_object(own)
        value = together[0][0] if together else math.nan
        rows = listed(list(dict.fromkeys(place for _, place in together))) or "(not found)"
        what, where = (
            ("the loss", "its rows are") if metric == "loss" else ("the gradients' norm", "the step's rows are")
        )
        step = self.state.global_step + 1
        raise NotFinite(
            f"training stopped in step {step} of {self.state.max_steps}, before it changed a weight: {what} is "
            f"{value:g}; {where} {rows}. {self._kept()} Check the rows; if they are right, lower "
            f"training.learning_rate (now {self.args.learning_rate:g}), raise training.warmup_steps, or lower "
            f"training.max_grad_norm (now {self.args.max_grad_norm:g}; 0 clips nothing)",
            step,
            {metric: value},
        )

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        if names := everywhere(not_finite(self.model)):
            raise NotFinite(
                f"training stopped after step {self.state.global_step} of {self.state.max_steps}: some weights are not "
                f"finite, so nothing is saved: {listed(names)}. {self._kept()} Lower training.learning_rate "
                f"(now {self.args.learning_rate:g})",
                self.state.global_step,
                {},
            )
        super().save_model(output_dir, _internal_call)

    def _kept(self) -> str:
        if (last := get_last_checkpoint(self.args.output_dir)) is None:
            return "No checkpoint was saved before."
        return f"The last checkpoint is {last}."


def everywhere(names: list[str]) -> list[str]:
    """The names of all processes together, sorted; the same on each."""
    return sorted(set(gather_object(names)))
