"""Root-mean-square normalisation."""

from typing import Any

import torch
from torch import Tensor, nn

from olmoe_ft.model.kernels import use_triton


class OlmoeRMSNorm(nn.Module):
    """`weight * x / sqrt(mean(x^2) + eps)` over the last axis (Zhang & Sennrich 2019, eq. 4).

    The statistics are taken in fp32 whatever the dtype of `x`; the result has the dtype of `x`.
    """

    def __init__(self, size: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        if use_triton(x) and x.dtype == self.weight.dtype:
            return FusedRMSNorm.apply(x, self.weight, self.eps)
        x32 = x.float()
        normalised = x32 * torch.rsqrt(x32.square().mean(dim=-1, keepdim=True) + self.eps)
        return self.weight * normalised.to(x.dtype)

    def extra_repr(self) -> str:
        return f"{self.weight.numel()}, eps={self.eps}"


class FusedRMSNorm(torch.autograd.Function):
    """The same in one kernel forward and one backward, which keep the input and a number a row."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        from olmoe_ft.model.kernels.norm import rms_norm

        rows = x.contiguous().view(-1, x.shape[-1])
        y, scale = rms_norm(rows, weight, eps)
        ctx.save_for_backward(rows, weight, scale)
        return y.view(x.shape)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, None]:
        from olmoe_ft.model.kernels.norm import rms_norm_backward

        rows, weight, scale = ctx.saved_tensors
        to_x, to_weight = rms_norm_backward(gradient.contiguous().view(rows.shape), rows, weight, scale)
        return to_x.view(gradient.shape), to_weight, None
