"""The router: which experts work on a token, and with what weight."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from olmoe_ft.model.config import OlmoeConfig


def freeze_routers(network: nn.Module) -> None:
    """Leave the routers' own weights as they are in training."""
    for module in network.modules():
        if isinstance(module, OlmoeTopKRouter):
            module.requires_grad_(False)


class OlmoeTopKRouter(nn.Module):
    """Dropless token-choice routing (OLMoE, section 2): softmax over all experts in fp32, then the K largest.

    Shapes: T tokens, H hidden, E experts, K experts per token.
    """

    def __init__(self, config: OlmoeConfig) -> None:
        super().__init__()
        self.num_experts_per_tok = config.num_experts_per_tok
        self.norm_topk_prob = config.norm_topk_prob
        self.weight = nn.Parameter(torch.zeros(config.num_experts, config.hidden_size))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """x (T, H) -> logits (T, E) pre-softmax, weights (T, K) in the dtype of x, expert indices (T, K)."""
        logits = F.linear(x, self.weight)  # (T, E)
        probabilities = logits.softmax(dim=-1, dtype=torch.float32)
        weights, experts = probabilities.topk(self.num_experts_per_tok, dim=-1)  # (T, K)
        if self.norm_topk_prob:
            weights = weights / weights.sum(dim=-1, keepdim=True)
        return logits, weights.to(logits.dtype), experts
