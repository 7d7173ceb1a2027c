"""Rotary position embeddings (Su et al. 2021, https://arxiv.org/abs/2104.09864).

Shapes: B batch, S sequence, N heads, D head size.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from olmoe_ft.model.config import OlmoeConfig
from olmoe_ft.model.kernels import being_traced, use_triton


def default_inverse_frequencies(config: OlmoeConfig, device=None, **_) -> tuple[Tensor, float]:
    """`theta^(-2i/D)` for i = 0 … D/2 - 1 (RoFormer, section 3.2.2), and a factor of 1 on cos and sin."""
    head_size = config.hidden_size // config.num_attention_heads
    exponents = torch.arange(0, head_size, 2, dtype=torch.float32, device=device) / head_size
    return 1.0 / config.rope_theta**exponents, 1.0


class OlmoeRotaryEmbedding(nn.Module):
    """Cosines and sines of every position's angles.

    The formulas of the scaling strategies (`rope_scaling`: linear, dynamic, …) are transformers'. "dynamic" stretches
    the angles once a batch holds positions beyond `max_position_embeddings`, by the longest row of the batch, as in
    transformers; unlike there, what earlier batches held does not matter.
    """

    inv_freq: Tensor

    def __init__(self, config: OlmoeConfig) -> None:
        super().__init__()
        self.config = config
        rope = config.rope_parameters
        assert rope is not None
        self.rope_type = rope["rope_type"]
        self.unscaled_length = config.max_position_embeddings
        if self.rope_type == "longrope":
            self.unscaled_length = rope["original_max_position_embeddings"]
        inv_freq, self.attention_scaling = self.inverse_frequencies()
        self.register_buffer("inv_freq", inv_freq, persistent=False)  # (D/2,)

    def inverse_frequencies(self, longest: Tensor | None = None, device=None) -> tuple[Tensor, float]:
        """(D/2,) angles per position, and the factor on cos and sin, for rows of up to `longest` positions."""
        formula = ROPE_INIT_FUNCTIONS.get(self.rope_type, default_inverse_frequencies)
        return formula(self.config, device, seq_len=longest)

    @torch.no_grad()
    def forward(self, x: Tensor, position_ids: Tensor) -> tuple[Tensor, Tensor]:
        """position_ids (B, S) -> cos, sin, each (B, S, D) in the dtype of `x`; angles are computed in fp32.

        As in transformers, `.to(torch.bfloat16)` rounds `inv_freq` too; `from_pretrained(…, dtype=…)` does not.
        """
        inv_freq = self.inv_freq
        if self.rope_type in ("dynamic", "longrope"):  # the two that depend on the length
            longest = position_ids.max() + 1
            stretched, _ = self.inverse_frequencies(longest, x.device)
            inv_freq = torch.where(longest > self.unscaled_length, stretched, inv_freq)
        angles = position_ids[..., None].float() * inv_freq.float()  # (B, S, D/2)
        angles = torch.cat((angles, angles), dim=-1)  # (B, S, D)
        cos, sin = angles.cos() * self.attention_scaling, angles.sin() * self.attention_scaling
        return cos.to(x.dtype), sin.to(x.dtype)


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn each pair (x_i, x_{i+D/2}) by its position's angle. x (B, N, S, D); cos and sin (B, S, D)."""
    # without its kernel, half precision is rounded where transformers does
    if being_traced() or (x.dtype in (torch.float16, torch.bfloat16) and not use_triton(x)):
        first, second = x.chunk(2, dim=-1)
        quarter_turn = torch.cat((-second, first), dim=-1)
        return x * cos.unsqueeze(1) + quarter_turn * sin.unsqueeze(1)
    return Rotation.apply(x, cos, sin) if torch.is_grad_enabled() else turn(x, cos, sin, back=False)


class Rotation(torch.autograd.Function):
    """The same in fewer passes; backward turns by the opposite angle."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        ctx.save_for_backward(cos, sin)
        return turn(x, cos, sin, back=False)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        cos, sin = ctx.saved_tensors
        return turn(gradient, cos, sin, back=True), None, None


def turn(x: Tensor, cos: Tensor, sin: Tensor, back: bool) -> Tensor:
    """`rotate`, or its inverse."""
    if use_triton(x) and x.dtype == cos.dtype:
        return _turn_by_token(x, cos, sin, back)
    (low, high), sign = x.chunk(2, dim=-1), -1 if back else 1
    angle = sin.unsqueeze(1)[..., : low.shape[-1]]  # both halves of the table are alike
    turned = x * cos.unsqueeze(1)
    turned_low, turned_high = turned.chunk(2, dim=-1)
    turned_low.addcmul_(high, angle, value=-sign)
    turned_high.addcmul_(low, angle, value=sign)
    return turned


def _turn_by_token(x: Tensor, cos: Tensor, sin: Tensor, back: bool) -> Tensor:
    """In one kernel. x (B, N, S, D), in memory by token: (B, S, N, D)."""
    from olmoe_ft.model.kernels.rotate import rotate as fused

    rows, _, length, size = x.shape
    by_token = [table.expand(rows, length, size).reshape(-1, size) for table in (cos, sin)]  # (T, D)
    flat = x.transpose(1, 2).contiguous().flatten(0, 1)  # (T, N, D)
    return fused(flat, by_token[0], by_token[1], back).unflatten(0, (rows, length)).transpose(1, 2)
