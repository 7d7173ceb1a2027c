"""Sum the gradients of a step's micro-batches in fp32.

autograd adds each gradient to `.grad` in the weight's dtype. In bf16 every addition rounds, so of 32 micro-batches the
last ones hardly count. Here each gradient is taken out as it comes, and `.grad` becomes their sum, rounded once.
"""

from collections.abc import Callable, Iterable

import torch
from torch import Tensor
from transformers import TrainerCallback


class GradientSums(TrainerCallback):
    """Collects the gradients of some weights; after a step's last micro-batch `.grad` is the sum of all.

    Under data parallelism the sum is complete before the processes average it. As a callback of the trainer it clears
    sums that an aborted attempt has left (`auto_find_batch_size`), and stops a step that would lose a sum.

    Args:
        weights: those to sum the gradients of.
        last: whether the current micro-batch is the step's last.
    """

    def __init__(self, weights: Iterable[Tensor], last: Callable[[], bool]) -> None:
        self.last = last
        self.sums: dict[Tensor, Tensor] = {}
        for weight in weights:
            weight.register_post_accumulate_grad_hook(self._take)

    def on_train_begin(self, args, state, control, **kwargs):
        self.sums.clear()

    def on_pre_optimizer_step(self, args, state, control, **kwargs):
        assert not self.sums, "a weight had no gradient in the step's last micro-batch, so its sum would be lost"

    def _take(self, weight: Tensor) -> None:
        gradient = weight.grad
        assert gradient is not None
        if (total := self.sums.get(weight)) is not None:
            total.add_(gradient)
        if self.last():
            if total is not None:
                weight.grad = self.sums.pop(weight).to(weight.dtype)
            return
        if total is None:
            self.sums[weight] = gradient.to(torch.float32, copy=True)
        weight.grad = None
