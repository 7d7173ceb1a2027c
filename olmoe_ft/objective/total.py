"""The one place where the task loss and the router losses are added."""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from olmoe_ft.objective.losses import Scope, balance, z
from olmoe_ft.objective.routing import Routing


@dataclass(frozen=True)
class RouterTerms:
    """The router's part of one micro-batch's objective."""

    load_balancing_loss: Tensor  # () raw, 1.0 at balance
    z_loss: Tensor  # () raw
    loss: Tensor  # () their weighted sum
    routing: Routing  # the sums behind them, without gradient


@dataclass(frozen=True)
class RouterObjective:
    """`load_balancing_coef * load balancing + z_loss_coef * z-loss`, with one set of coefficients for a run."""

    num_experts_per_tok: int
    load_balancing_coef: float
    z_loss_coef: float
    scope: Scope = "layer"

    def terms(self, router_logits: Sequence[Tensor], token_mask: Tensor | None = None) -> RouterTerms:
        """Raw and weighted losses of a micro-batch; arguments as in `load_balancing_loss`."""
        routing = Routing.of(router_logits, self.num_experts_per_tok, token_mask)
        load_balancing, z_loss = balance(routing, self.num_experts_per_tok, self.scope), z(routing)
        weighted = self.load_balancing_coef * load_balancing + self.z_loss_coef * z_loss
        return RouterTerms(load_balancing, z_loss, weighted, routing.detach())

    @staticmethod
    def total(task_loss: Tensor, terms: RouterTerms, micro_batches: int = 1) -> Tensor:
        """What is optimised: the task loss plus the router losses, averaged over a step's micro-batches.

        Args:
            micro_batches: over how many accumulation steps the caller sums without dividing: 1 where the training
                loop divides the returned loss itself, the number of steps where the task loss is already divided.
        """
        return task_loss + terms.loss / micro_batches
