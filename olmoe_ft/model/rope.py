"""Rotary position embeddings (Su et al. 2021, https://arxiv.org/abs/2104.09864).

Shapes: B batch, S sequence, N heads, D head size.
"""

import torch
from torch import Tensor, nn
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS, dynamic_rope_update

from olmoe_ft.model.config import OlmoeConfig


def default_inverse_frequencies(config: OlmoeConfig, device=None, **_) -> tuple[Tensor, float]:
    """`theta^(-2i/D)` for i = 0 … D/2 - 1 (RoFormer, section 3.2.2), and a factor of 1 on cos and sin."""
    head_size = config.hidden_size // config.num_attention_heads
    exponents = torch.arange(0, head_size, 2, dtype=torch.float32, device=device) / head_size
    assert config.rope_parameters is not None
    return 1.0 / config.rope_parameters["rope_theta"] ** exponents, 1.0


class OlmoeRotaryEmbedding(nn.Module):
    """Cosines and sines of every position's angles; scaling strategies (linear, dynamic, …) are transformers'."""

    inv_freq: Tensor

    def __init__(self, config: OlmoeConfig) -> None:
        super().__init__()
        self.config = config
        assert config.rope_parameters is not None
        self.rope_type = config.rope_parameters["rope_type"]
        frequencies = ROPE_INIT_FUNCTIONS.get(self.rope_type, default_inverse_frequencies)
        inv_freq, self.attention_scaling = frequencies(config, None)
        self.register_buffer("inv_freq", inv_freq, persistent=False)
        # what `dynamic_rope_update` compares lengths with, and returns to after a long sequence
        self.register_buffer("original_inv_freq", inv_freq.clone(), persistent=False)
        self.max_seq_len_cached = self.original_max_seq_len = config.max_position_embeddings

    # transformers' name for the unscaled frequencies; its weight initialisation calls it
    compute_default_rope_parameters = staticmethod(default_inverse_frequencies)

    @torch.no_grad()
    @dynamic_rope_update
    def forward(self, x: Tensor, position_ids: Tensor) -> tuple[Tensor, Tensor]:
        """position_ids (B, S) -> cos, sin, each (B, S, D) in the dtype of `x`; angles are computed in fp32."""
        angles = position_ids[..., None].float() * self.inv_freq.float()  # (B, S, D/2)
        angles = torch.cat((angles, angles), dim=-1)  # (B, S, D)
        cos, sin = angles.cos() * self.attention_scaling, angles.sin() * self.attention_scaling
        return cos.to(x.dtype), sin.to(x.dtype)


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn each pair (x_i, x_{i+D/2}) by its position's angle. x (B, N, S, D); cos and sin (B, S, D)."""
    first, second = x.chunk(2, dim=-1)
    quarter_turn = torch.cat((-second, first), dim=-1)
    return x * cos.unsqueeze(1) + quarter_turn * sin.unsqueeze(1)
