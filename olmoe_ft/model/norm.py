"""Root-mean-square normalisation."""

import torch
from torch import Tensor, nn


class OlmoeRMSNorm(nn.Module):
    """`weight * x / sqrt(mean(x^2) + eps)` over the last axis (Zhang & Sennrich 2019, eq. 4).

    The statistics are taken in fp32 whatever the dtype of `x`; the result has the dtype of `x`.
    """

    def __init__(self, size: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        x32 = x.float()
        normalised = x32 * torch.rsqrt(x32.square().mean(dim=-1, keepdim=True) + self.eps)
        return self.weight * normalised.to(x.dtype)

    def extra_repr(self) -> str:
        return f"{self.weight.numel()}, eps={self.eps}"
