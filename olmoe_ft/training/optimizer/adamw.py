"""AdamW for bf16 weights that have no fp32 copy."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.optim.adamw import adamw

from olmoe_ft.model.kernels import use_triton
from olmoe_ft.training.optimizer.layout import BLOCK, Step
from olmoe_ft.training.optimizer.update import read_master, update


class Bf16AdamW(torch.optim.Optimizer):
    """AdamW (Loshchilov & Hutter 2019) that updates bf16 weights as precisely as fp32 ones, which get torch's own.

    The last bit of a bf16 weight of 0.02 is 1.2e-4, so steps of 1e-5 would round to nothing. Here its lower 16 bits are
    kept too, and both moments in 16 bits (`layout.py`): 6 bytes per weight, 8 with its gradient, as with AdamW in plain
    bf16. The network sees the fp32 weight, rounded.

    Args:
        params: weights or groups of them, in bf16 or fp32.
        lr, betas, eps, weight_decay: as in `torch.optim.AdamW`.
    Raises:
        ValueError: a weight of another dtype.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
    ) -> None:
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay})
        for weight in self._weights():
            if weight.dtype not in (torch.bfloat16, torch.float32):
                raise ValueError(f"Bf16AdamW trains weights in bfloat16 and float32; found {weight.dtype}")

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            single = []
            for weight in group["params"]:
                if weight.grad is None:
                    continue
                if weight.dtype == torch.bfloat16:
                    self._step_bf16(weight, weight.grad, group)
                else:
                    single.append(weight)
            if single:
                self._step_fp32(single, group)
        return loss

    def master(self, weight: Tensor) -> Tensor:
        """The optimizer's exact value of a weight, in fp32."""
        if weight.dtype == torch.float32 or weight not in self.state:
            return weight.detach().float()
        return read_master(weight.detach(), self.state[weight]["remainder"])

    def _step_bf16(self, weight: Tensor, gradient: Tensor, group: dict[str, Any]) -> None:
        state = self.state[weight]
        if not state:
            assert weight.is_contiguous(), "the bits of a weight are read in the order of memory"
            state["step"] = 0
            state["remainder"] = torch.zeros_like(weight, dtype=torch.int16)
            state["moments"] = torch.zeros_like(weight, dtype=torch.int16)
            blocks = -(-weight.numel() // BLOCK)
            state["exponents"] = torch.zeros(blocks, dtype=torch.uint8, device=weight.device)
        state["step"] += 1
        step = Step.of(state["step"], float(group["lr"]), group["betas"], group["eps"], group["weight_decay"])
        kept = state["remainder"], state["moments"], state["exponents"]
        if use_triton(weight):
            from olmoe_ft.training.optimizer.kernel import update as fused

            fused(weight, *kept, gradient, step)
        else:
            update(weight, *kept, gradient, step)

    def _step_fp32(self, weights: list[Tensor], group: dict[str, Any]) -> None:
        for weight in weights:
            if not self.state[weight]:
                self.state[weight]["step"] = torch.zeros((), device=weight.device)
                self.state[weight]["exp_avg"] = torch.zeros_like(weight)
                self.state[weight]["exp_avg_sq"] = torch.zeros_like(weight)
        kept = [self.state[weight] for weight in weights]
        adamw(
            weights,
            [weight.grad for weight in weights if weight.grad is not None],
            [state["exp_avg"] for state in kept],
            [state["exp_avg_sq"] for state in kept],
            [],
            [state["step"] for state in kept],
            fused=True,
            amsgrad=False,
            beta1=group["betas"][0],
            beta2=group["betas"][1],
            lr=group["lr"],
            weight_decay=group["weight_decay"],
            eps=group["eps"],
            maximize=False,
        )

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """torch casts every state to the weight's dtype; these are bits, so they keep the dtype that was saved."""
        super().load_state_dict(state_dict)
        numbers = (number for group in state_dict["param_groups"] for number in group["params"])
        for weight, number in zip(self._weights(), numbers, strict=True):
            if number in state_dict["state"]:
                self.state[weight] = {
                    name: value.to(weight.device, copy=True) if isinstance(value, Tensor) else value
                    for name, value in state_dict["state"][number].items()
                }

    def _weights(self) -> Iterable[Tensor]:
        return (weight for group in self.param_groups for weight in group["params"])
