"""The one place where the task loss and the router losses are added."""

from dataclasses import dataclass

from torch import Tensor

from olmoe_ft.constants import Scope
from olmoe_ft.objective.losses import balance, z
from olmoe_ft.objective.routing import Counts, Routing


@dataclass(frozen=True)
class RouterTerms:
    """The router's part of one micro-batch's objective."""

    load_balancing_loss: Tensor  # () raw, 1.0 at balance
    z_loss: Tensor  # () raw
    loss: Tensor  # () their weighted sum


@dataclass(frozen=True)
class RouterObjective:
    """`load_balancing_coef * load balancing + z_loss_coef * z-loss`, with one set of coefficients for a run."""

    load_balancing_coef: float
    z_loss_coef: float
    scope: Scope = "layer"

    def __bool__(self) -> bool:
        """Whether there is anything to optimise."""
        return self.load_balancing_coef != 0 or self.z_loss_coef != 0

    def terms(self, routing: Routing, counts: Counts | None = None) -> RouterTerms:
        """Raw and weighted losses of a micro-batch; `counts` as in `balance`."""
        load_balancing, z_loss = balance(routing, self.scope, counts), z(routing, counts)
        weighted = self.load_balancing_coef * load_balancing + self.z_loss_coef * z_loss
        return RouterTerms(load_balancing, z_loss, weighted)

    @staticmethod
    def total(task_loss: Tensor, terms: RouterTerms, micro_batches: int = 1) -> Tensor:
        """The loss that is optimised: the task loss plus the router losses, averaged over a step's micro-batches.

        Args:
            micro_batches: the number of accumulation steps that the caller sums without dividing: 1 if the training
                loop divides the returned loss itself, the number of steps if the task loss is already divided.
        """
        return task_loss + terms.loss / micro_batches
