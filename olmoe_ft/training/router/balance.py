"""Whose tokens are balanced together: `router.balance_over`."""

import torch
from accelerate import Accelerator
from torch import Tensor

from olmoe_ft.constants import BalanceOver
from olmoe_ft.objective import Counts, Routing


class BalanceGroup:
    """Counts of the tokens that are balanced together with those of a micro-batch.

    `ranks`: of the micro-batches that all data-parallel processes work on at once. `accumulation`: for the experts'
    shares also of those before them in the optimizer step, as in Qiu et al. 2025 (https://arxiv.org/abs/2501.11873),
    whose buffer this is: a later micro-batch sees more of the step than an earlier one.
    """

    def __init__(self, over: BalanceOver, accelerator: Accelerator) -> None:
        self.over, self.accelerator = over, accelerator
        self.buffer: Tensor | None = None  # (L, E) assignments so far in this optimizer step

    def counts(self, routing: Routing) -> Counts:
        """Called once for each micro-batch, by every process: one all-reduce of L·E + 1 numbers, none by default."""
        if self.over == "micro_batch":
            return routing.counts
        own = torch.cat([routing.assignments.flatten(), routing.tokens.reshape(1)])
        group = self.accelerator.reduce(own, reduction="sum")
        assignments = group[:-1].view_as(routing.assignments)
        tokens = group[-1] / self.accelerator.num_processes  # see `Counts`
        if self.over == "accumulation":
            assignments = assignments if self.buffer is None else self.buffer + assignments
            self.buffer = None if self.accelerator.sync_gradients else assignments
        return Counts(assignments, tokens)
