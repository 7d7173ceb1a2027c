"""OLMoE: the decoder (`OlmoeModel`) and the language model on top of it (`OlmoeForCausalLM`).

Shapes: B batch, S sequence, H hidden, T = B·S tokens, E experts, V vocabulary.
"""

import torch
from torch import Tensor, nn
from transformers import GenerationMixin, PreTrainedModel
from transformers import initialization as init
from transformers.cache_utils import Cache, DynamicCache
from transformers.conversion_mapping import (
    get_checkpoint_conversion_mapping,
    register_checkpoint_conversion_mapping,
)
from transformers.masking_utils import create_causal_mask
from transformers.modeling_outputs import MoeCausalLMOutputWithPast, MoeModelOutputWithPast
from transformers.utils import can_return_tuple

from olmoe_ft.model.config import OlmoeConfig
from olmoe_ft.model.decoder import OlmoeDecoderLayer
from olmoe_ft.model.experts import OlmoeExperts
from olmoe_ft.model.norm import OlmoeRMSNorm
from olmoe_ft.model.rope import OlmoeRotaryEmbedding
from olmoe_ft.model.router import OlmoeTopKRouter
from olmoe_ft.objective import load_balancing_loss

# transformers stacks per-expert checkpoints into our 3-D weights on load and splits them on save, by model type. For
# classes outside its own package it does so only where the mapping was registered: this registers its own, unchanged.
register_checkpoint_conversion_mapping("olmoe", get_checkpoint_conversion_mapping("olmoe"), overwrite=True)


class OlmoePreTrainedModel(PreTrainedModel):
    """What transformers must know to initialise, load, save, checkpoint and dispatch the classes below."""

    config: OlmoeConfig
    config_class = OlmoeConfig
    base_model_prefix = "model"
    supports_gradient_checkpointing = True
    _no_split_modules = ["OlmoeDecoderLayer"]
    _skip_keys_device_placement = ["past_key_values"]
    _supports_flash_attn = True
    _supports_sdpa = True
    _supports_flex_attn = True
    _supports_attention_backend = True

    @classmethod
    def _can_set_experts_implementation(cls) -> bool:
        return True  # transformers looks for its decorator in this file's text; ours stands in experts.py

    def _grouped_mm_can_dispatch(self) -> bool:
        """Grouped matrix products need rows of a multiple of 16 bytes, in bf16 too; other sizes run the plain loop."""
        sizes = (self.config.hidden_size, self.config.intermediate_size)
        if any(size % 8 for size in sizes):
            raise ValueError(
                f"experts_implementation='grouped_mm' needs hidden_size and intermediate_size to be multiples of 8, "
                f"and {sizes} are not: use experts_implementation='eager'"
            )
        return super()._grouped_mm_can_dispatch()

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        std = self.config.initializer_range
        if isinstance(module, OlmoeExperts):
            init.normal_(module.gate_up_proj, mean=0.0, std=std)
            init.normal_(module.down_proj, mean=0.0, std=std)
        elif isinstance(module, OlmoeTopKRouter):
            init.normal_(module.weight, mean=0.0, std=std)


class OlmoeModel(OlmoePreTrainedModel):
    """Embedding, decoder layers, final norm."""

    def __init__(self, config: OlmoeConfig) -> None:
        super().__init__(config)
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size, config.pad_token_id)
        self.layers = nn.ModuleList(OlmoeDecoderLayer(config, index) for index in range(config.num_hidden_layers))
        self.norm = OlmoeRMSNorm(config.hidden_size, config.rms_norm_eps)
        self.rotary_emb = OlmoeRotaryEmbedding(config)
        self.gradient_checkpointing = False
        self.post_init()

    @can_return_tuple
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: Tensor | None = None,
        use_cache: bool | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        output_router_logits: bool | None = None,
        **kwargs,
    ) -> MoeModelOutputWithPast:
        """Token ids (B, S) or embeddings (B, S, H) -> hidden states (B, S, H) and what the `output_` flags ask for.

        Args:
            attention_mask: (B, S + cached), 1 for tokens, 0 for padding; None where documents are packed, which
                `position_ids` that start again at 0 then keep apart.
        Returns:
            `router_logits` is a tuple of one (T, E) tensor a layer, pre-softmax, with gradient.
        Raises:
            ValueError: unless exactly one of `input_ids` and `inputs_embeds` is given.
        """
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError("give exactly one of input_ids and inputs_embeds")
        config = self.config
        use_cache = config.use_cache if use_cache is None else use_cache
        output_attentions = config.output_attentions if output_attentions is None else output_attentions
        output_hidden_states = config.output_hidden_states if output_hidden_states is None else output_hidden_states
        output_router_logits = config.output_router_logits if output_router_logits is None else output_router_logits
        if use_cache and past_key_values is None and not (self.gradient_checkpointing and self.training):
            past_key_values = DynamicCache(config=config)
        x = self.embed_tokens(input_ids) if inputs_embeds is None else inputs_embeds
        if position_ids is None:
            seen = past_key_values.get_seq_length() if past_key_values is not None else 0
            position_ids = torch.arange(seen, seen + x.shape[1], device=x.device).unsqueeze(0)
        mask = create_causal_mask(config, x, attention_mask, past_key_values, position_ids)
        cos_sin = self.rotary_emb(x, position_ids)

        hidden_states, router_logits, attentions = [], [], []
        for layer in self.layers:
            hidden_states.append(x)
            x, logits, weights = layer(
                x, cos_sin, mask, past_key_values=past_key_values, position_ids=position_ids, **kwargs
            )
            router_logits.append(logits)
            attentions.append(weights)
            if not output_hidden_states:  # keep nothing alive that nobody asked for
                hidden_states.clear()
        x = self.norm(x)
        hidden_states.append(x)  # the last entry is the normalised output, as in transformers
        return MoeModelOutputWithPast(
            last_hidden_state=x,
            past_key_values=past_key_values,
            hidden_states=tuple(hidden_states) if output_hidden_states else None,
            attentions=tuple(attentions) if output_attentions else None,
            router_logits=tuple(router_logits) if output_router_logits else None,
        )


class OlmoeForCausalLM(OlmoePreTrainedModel, GenerationMixin):
    """OLMoE with its language-model head; `generate` comes from transformers."""

    _tied_weights_keys = {"lm_head.weight": "model.embed_tokens.weight"}

    def __init__(self, config: OlmoeConfig) -> None:
        super().__init__(config)
        self.model = OlmoeModel(config)
        self.vocab_size = config.vocab_size
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.post_init()

    @can_return_tuple
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        use_cache: bool | None = None,
        output_router_logits: bool | None = None,
        logits_to_keep: int | Tensor = 0,
        **kwargs,
    ) -> MoeCausalLMOutputWithPast:
        """Next-token logits (B, S, V), and the loss where `labels` (B, S; -100 is ignored) are given.

        With router logits asked for, `aux_loss` is transformers' pooled load balancing, `num_experts_per_tok` at
        balance, and `loss` includes `router_aux_loss_coef` times it: the documented numbers. Training does not use
        them; it adds its own objective (`olmoe_ft.objective`).

        Args:
            logits_to_keep: how many last positions get logits (0: all), or the positions themselves.
        """
        config = self.config
        if output_router_logits is None:
            output_router_logits = config.output_router_logits
        outputs = self.model(
            input_ids=input_ids,
            attention_mask=attention_mask,
            position_ids=position_ids,
            past_key_values=past_key_values,
            inputs_embeds=inputs_embeds,
            use_cache=use_cache,
            output_router_logits=output_router_logits,
            **kwargs,
        )
        keep = slice(-logits_to_keep, None) if isinstance(logits_to_keep, int) else logits_to_keep
        logits = self.lm_head(outputs.last_hidden_state[:, keep])

        loss = aux_loss = None
        if labels is not None:
            loss = self.loss_function(logits, labels, config.vocab_size, **kwargs)
        if output_router_logits:
            aux_loss = config.num_experts_per_tok * load_balancing_loss(
                outputs.router_logits,
                config.num_experts_per_tok,
                None if attention_mask is None else attention_mask.flatten(),
                scope="pooled",
            )
            if loss is not None:
                loss = loss + config.router_aux_loss_coef * aux_loss
        return MoeCausalLMOutputWithPast(
            loss=loss,
            aux_loss=aux_loss,
            logits=logits,
            past_key_values=outputs.past_key_values,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
            router_logits=outputs.router_logits,
        )
