"""Causal self-attention with normalised queries and keys.

Shapes: B batch, S query positions, C key positions (cache included), H hidden, N query heads, M key heads, D head size.
"""

import torch
from torch import Tensor, nn
from transformers import AttentionInterface
from transformers.cache_utils import Cache

from olmoe_ft.model.attention_backends import segment_attention, varlen_attention
from olmoe_ft.model.attention_plan import AttentionPlan
from olmoe_ft.model.config import OlmoeConfig
from olmoe_ft.model.implementations import attention_implementation
from olmoe_ft.model.norm import OlmoeRMSNorm
from olmoe_ft.model.rope import rotate


def eager_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float,
    dropout: float = 0.0,
) -> tuple[Tensor, Tensor]:
    """`softmax(q k^T * scaling + mask) v` (Vaswani et al. 2017, eq. 1), softmax in fp32: the oracle of all back ends.

    Args:
        query: (B, N, S, D); key and value: (B, M, C, D), each shared by N / M query heads.
        attention_mask: additive, (B, 1, S, C), or None.
    Returns:
        (B, S, N, D) and the weights (B, N, S, C).
    """
    groups = query.shape[1] // key.shape[1]
    key, value = key.repeat_interleave(groups, dim=1), value.repeat_interleave(groups, dim=1)
    scores = query @ key.transpose(-1, -2) * scaling  # (B, N, S, C)
    if attention_mask is not None:
        scores = scores + attention_mask
    weights = scores.softmax(dim=-1, dtype=torch.float32).to(query.dtype)
    weights = nn.functional.dropout(weights, p=dropout, training=module.training)
    return (weights @ value).transpose(1, 2).contiguous(), weights


ATTENTION = AttentionInterface()  # transformers' back ends, and ours
ATTENTION["segments"], ATTENTION["varlen"] = segment_attention, varlen_attention


class OlmoeAttention(nn.Module):
    """Attention of one layer. OLMoE normalises queries and keys over all heads together (paper, section 4.2.5)."""

    def __init__(self, config: OlmoeConfig, layer_idx: int) -> None:
        super().__init__()
        assert config.num_key_value_heads is not None
        self.config = config
        self.layer_idx = layer_idx
        self.is_causal = True  # read by the attention back ends
        self.head_dim = config.hidden_size // config.num_attention_heads
        self.num_key_value_groups = config.num_attention_heads // config.num_key_value_heads  # read by back ends
        self.scaling = self.head_dim**-0.5
        hidden, key_size, bias = (
            config.hidden_size,
            config.num_key_value_heads * self.head_dim,
            config.attention_bias,
        )
        self.q_proj = nn.Linear(hidden, hidden, bias=bias)
        self.k_proj = nn.Linear(hidden, key_size, bias=bias)
        self.v_proj = nn.Linear(hidden, key_size, bias=bias)
        self.o_proj = nn.Linear(hidden, hidden, bias=bias)
        self.q_norm = OlmoeRMSNorm(hidden, config.rms_norm_eps)
        self.k_norm = OlmoeRMSNorm(key_size, config.rms_norm_eps)

    def forward(
        self,
        x: Tensor,
        position_embeddings: tuple[Tensor, Tensor],
        past_key_values: Cache | None = None,
        plan: AttentionPlan | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        """x (B, S, H) -> (B, S, H), and the attention weights (B, N, S, C) where the back end has them.

        `plan` names the back end and what it takes; None: the config's, without a mask.
        """
        plan = plan or AttentionPlan(attention_implementation(self.config), None, {})
        query, key, value = self.q_norm(self.q_proj(x)), self.k_norm(self.k_proj(x)), self.v_proj(x)
        if (limit := self.config.clip_qkv) is not None:
            query, key, value = (states.clamp(-limit, limit) for states in (query, key, value))
        query, key, value = (self._split_heads(states) for states in (query, key, value))
        query, key = rotate(query, *position_embeddings), rotate(key, *position_embeddings)
        if past_key_values is not None:
            key, value = past_key_values.update(key, value, self.layer_idx)
        attend = ATTENTION.get_interface(plan.implementation, eager_attention)
        dropout = self.config.attention_dropout if self.training else 0.0
        attended, weights = attend(
            self, query, key, value, plan.mask, scaling=self.scaling, dropout=dropout, **plan.arguments
        )
        return self.o_proj(attended.flatten(-2)), weights

    def _split_heads(self, states: Tensor) -> Tensor:
        return states.unflatten(-1, (-1, self.head_dim)).transpose(1, 2)  # (B, S, N·D) -> (B, N, S, D)
