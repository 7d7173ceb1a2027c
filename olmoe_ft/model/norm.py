"""Root-mean-square normalisation.

Shapes: H hidden.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from olmoe_ft.model.kernels import being_traced, use_triton


class OlmoeRMSNorm(nn.Module):
    """`weight * x / sqrt(mean(x^2) + eps)` over the last axis (Zhang & Sennrich 2019, eq. 4).

    The statistics are taken in fp32 whatever the dtype of `x`; the result has the dtype of `x`.
    """

    def __init__(self, size: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        if being_traced():
            return normalise(x, self.weight, self.eps)[0]
        if not torch.is_grad_enabled():
            if x.dtype == self.weight.dtype == torch.float32 and not use_triton(x):  # the same in one call
                return F.rms_norm(x, self.weight.shape, self.weight, self.eps)
            return normalise_fast(x, self.weight, self.eps)[0]
        return Normalisation.apply(x, self.weight, self.eps)

    def extra_repr(self) -> str:
        return f"{self.weight.numel()}, eps={self.eps}"


def normalise(x: Tensor, weight: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """x (…, H) -> the normalised x in its dtype, and `1 / rms(x)` (…, 1) in fp32."""
    x32 = x.float()
    scale = torch.rsqrt(x32.square().mean(dim=-1, keepdim=True) + eps)
    return weight * (x32 * scale).to(x.dtype), scale


def normalise_fast(x: Tensor, weight: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """The same by its kernel, where there is one."""
    if use_triton(x) and x.dtype == weight.dtype:
        from olmoe_ft.model.kernels.norm import rms_norm

        y, scale = rms_norm(x.contiguous().view(-1, x.shape[-1]), weight, eps)
        return y.view(x.shape), scale.view(*x.shape[:-1], 1)
    return normalise(x, weight, eps)


class Normalisation(torch.autograd.Function):
    """Keeps the input and a number a row; autograd would keep the normalised row too."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        y, scale = normalise_fast(x, weight, eps)
        ctx.save_for_backward(x, weight, scale)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor | None, None]:
        x, weight, scale = ctx.saved_tensors
        if use_triton(x) and x.dtype == weight.dtype:
            from olmoe_ft.model.kernels.norm import rms_norm_backward

            rows, by_row = x.contiguous().view(-1, x.shape[-1]), gradient.contiguous().view(-1, x.shape[-1])
            to_x, to_weight = rms_norm_backward(by_row, rows, weight, scale.flatten())
            return to_x.view(x.shape), to_weight, None
        return *normalise_backward(gradient, x, weight, scale, ctx.needs_input_grad[1]), None


def normalise_backward(
    gradient: Tensor, x: Tensor, weight: Tensor, scale: Tensor, trained: bool
) -> tuple[Tensor, Tensor | None]:
    """With `n = x / rms(x)` and `d = weight * dy`: `dx = (d - n <d, n> / H) / rms(x)`, and `dweight = sum dy n`.

    Both products with dy are rounded to its dtype, as autograd would.
    """
    normalised = x.float() * scale
    to_weight = (gradient * normalised.to(x.dtype)).flatten(0, -2).sum(dim=0).to(weight.dtype) if trained else None
    to_x = (gradient * weight).float()
    shared = torch.linalg.vecdot(to_x, normalised).div_(x.shape[-1]).unsqueeze(-1)
    return to_x.sub_(normalised.mul_(shared)).mul_(scale).to(x.dtype), to_weight
