"""What both trainers add to TRL's: the router objective in the loss, and its numbers in the log."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset

from olmoe_ft.objective import RouterObjective, Routing
from olmoe_ft.recipe.schema import Router
from olmoe_ft.training.carried import CarriedMixin
from olmoe_ft.training.performance import Work
from olmoe_ft.training.router.balance import BalanceGroup
from olmoe_ft.training.router.drift import RoutingDrift
from olmoe_ft.training.router.guard import GradientGuard
from olmoe_ft.training.router.logits import counted_tokens
from olmoe_ft.training.router.window import LogWindow
from olmoe_ft.training.scoring import Heard, network_of


class RouterLossMixin(CarriedMixin):
    """Comes before a TRL trainer among the bases: `loss = task loss + router losses`, the same for any machine shape.

    TRL's own auxiliary term must be off (`router_aux_loss_coef=0`). Evaluation returns the task loss alone.

    Args:
        router: the recipe's section.
        probe_file: where the probe batch and its routing are kept, in the run directory.
        source_rows: a few rows of each data source, whose routing is kept there too.
    """

    def __init__(
        self, *args: Any, router: Router, probe_file: Path, source_rows: Mapping[str, Dataset], **kwargs: Any
    ) -> None:
        super().__init__(*args, **kwargs)
        self.router = router
        self.router_objective = RouterObjective(router.load_balancing_coef, router.z_loss_coef, router.scope)
        self.network = network_of(self.model)
        self.backbone = self.network.base_model
        self._balance_group = BalanceGroup(router.balance_over, self.accelerator)
        self._guard = GradientGuard(self.model, self.backbone.layers, router) if self.router_objective else None
        self.work = Work()
        self._window = LogWindow()
        self._drift = RoutingDrift(self, self.backbone, router.tokens, probe_file, source_rows)
        self.add_callback(self._drift)

    def training_step(self, model, inputs, num_items_in_batch=None):
        if self._guard is None:
            return super().training_step(model, inputs, num_items_in_batch)
        with self._guard:
            loss = super().training_step(model, inputs, num_items_in_batch)
        # when the first step is over, or the first in which a token counted
        if not self._guard.missing or (self.accelerator.sync_gradients and self._guard.counted):
            self._guard.check()
            self._guard = None
        return loss

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        if not self.model.training:
            return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        heard = Heard(model)
        task_loss = super().compute_loss(heard, inputs, num_items_in_batch=num_items_in_batch)
        [scores] = heard.trained  # TRL may run others without gradient, for its metrics
        seen = inputs.get("packed", inputs)  # what the network saw
        self.work.add(seen)
        mask = counted_tokens(seen, self.router.tokens, self.processing_class.pad_token_id)
        with torch.set_grad_enabled(bool(self.router_objective)):  # without coefficients it is only looked at
            routing = Routing.of(scores.router_logits, self.backbone.config.num_experts_per_tok, mask)
        if self._guard is not None:
            self._guard.counted |= bool(routing.tokens)
        terms = self.router_objective.terms(routing, self._balance_group.counts(routing))
        # Trainer sums micro-batches. Where it counted their tokens the task loss is already divided by all of them,
        # and the router's term must be divided too; elsewhere Trainer divides what is returned here.
        micro_batches = self.current_gradient_accumulation_steps
        divided = num_items_in_batch is not None
        self._window.add(task_loss, terms, routing, micro_batches, task_is_divided=divided)
        if not self.router_objective:
            return task_loss
        return self.router_objective.total(task_loss, terms, micro_batches if divided else 1)

    def carried(self) -> dict[str, Any]:
        return super().carried() | {
            "window": self._window.carried(),
            "places": self.work.places,
            "computed": self.work.computed,
        }

    def carry_on(self, kept: dict[str, Any], same_shape: bool) -> None:
        super().carry_on(kept, same_shape)
        if same_shape:
            self._window.carry_on(kept["window"], self.accelerator.device)
            self.work.places, self.work.computed = kept["places"], kept["computed"]

    def log(self, logs: dict[str, Any], start_time: float | None = None) -> None:
        if "loss" in logs:  # a record of training steps; every process comes here
            logs |= self._window.metrics(self.accelerator)
            logs |= self._drift.record_if_due(logs.get("router/tokens", 0))
            self._window = LogWindow()
        super().log(logs, start_time)
