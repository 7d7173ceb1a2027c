"""One decoder layer: attention and the mixture of experts, each behind a norm and around a residual.

Shapes: B batch, S sequence, H hidden, T = B·S tokens, E experts.
"""

from torch import Tensor, nn
from transformers.cache_utils import Cache
from transformers.modeling_layers import GradientCheckpointingLayer

from olmoe_ft.model.attention import OlmoeAttention
from olmoe_ft.model.attention_plan import AttentionPlan
from olmoe_ft.model.config import OlmoeConfig
from olmoe_ft.model.experts.layer import OlmoeExperts
from olmoe_ft.model.experts.peft_bridge import multiply_instead_of_fold
from olmoe_ft.model.norm import OlmoeRMSNorm
from olmoe_ft.model.router import OlmoeTopKRouter


class OlmoeSparseMoeBlock(nn.Module):
    """Route each token to K of E experts and sum what they return, weighted by the router (OLMoE, eq. 1)."""

    def __init__(self, config: OlmoeConfig) -> None:
        super().__init__()
        self.gate = OlmoeTopKRouter(config)
        self.experts = OlmoeExperts(config)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """x (B, S, H) -> (B, S, H), and the router's logits (T, E)."""
        if not isinstance(self.experts, OlmoeExperts):  # PEFT has put its wrappers around them
            multiply_instead_of_fold(self.experts)
        tokens = x.flatten(0, 1)  # (T, H)
        logits, weights, experts = self.gate(tokens)
        return self.experts(tokens, experts, weights).view_as(x), logits


class OlmoeDecoderLayer(GradientCheckpointingLayer):
    """`h = x + attention(norm(x))`, `y = h + experts(norm(h))`.

    The router's logits are an output of the layer, not recorded by a hook inside it: so they are outputs of the
    checkpointed function too, and keep their gradient under reentrant checkpointing.
    """

    def __init__(self, config: OlmoeConfig, layer_idx: int) -> None:
        super().__init__()
        self.self_attn = OlmoeAttention(config, layer_idx)
        self.mlp = OlmoeSparseMoeBlock(config)
        self.input_layernorm = OlmoeRMSNorm(config.hidden_size, config.rms_norm_eps)
        self.post_attention_layernorm = OlmoeRMSNorm(config.hidden_size, config.rms_norm_eps)

    def forward(
        self,
        x: Tensor,
        position_embeddings: tuple[Tensor, Tensor],
        past_key_values: Cache | None = None,
        plan: AttentionPlan | None = None,
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """x (B, S, H) -> (B, S, H), router logits (T, E), attention weights where the back end has them.

        `plan` says who attends to whom. It is given by keyword: DeepSpeed and gradient checkpointing look into
        positional arguments for tensors.
        """
        attended, attention_weights = self.self_attn(
            self.input_layernorm(x), position_embeddings, past_key_values=past_key_values, plan=plan
        )
        h = x + attended
        mixed, router_logits = self.mlp(self.post_attention_layernorm(h))
        return h + mixed, router_logits, attention_weights
