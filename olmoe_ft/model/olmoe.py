"""OLMoE: the decoder (`OlmoeModel`) and the language model on top of it (`OlmoeForCausalLM`).

Shapes: B batch, S sequence, C cached positions, H hidden, N heads, T = B·S tokens, E experts, V vocabulary.
"""

from torch import Tensor, nn
from torch.nn.functional import pad
from transformers import GenerationMixin
from transformers.cache_utils import Cache
from transformers.modeling_outputs import MoeCausalLMOutputWithPast, MoeModelOutputWithPast
from transformers.utils import can_return_tuple
from transformers.utils.import_utils import is_tracing

from olmoe_ft.constants import IGNORED
from olmoe_ft.model.attention_plan import bounds_given, documents_of, plan_attention, refuse_other_bounds
from olmoe_ft.model.cache import LegacyCache, as_cache, cache_for, next_positions, to_legacy
from olmoe_ft.model.config import OlmoeConfig
from olmoe_ft.model.decoder import OlmoeDecoderLayer
from olmoe_ft.model.keywords import LOSS, PACKING, refuse_unknown
from olmoe_ft.model.norm import OlmoeRMSNorm
from olmoe_ft.model.pretrained import OlmoePreTrainedModel
from olmoe_ft.model.rope import OlmoeRotaryEmbedding
from olmoe_ft.objective import load_balancing_loss


class OlmoeModel(OlmoePreTrainedModel):
    """Embedding, decoder layers, final norm."""

    _keys_to_ignore_on_load_unexpected = [r"^lm_head\."]  # the decoder of a whole checkpoint

    def __init__(self, config: OlmoeConfig) -> None:
        super().__init__(config)
        config = self.config
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
        past_key_values: Cache | LegacyCache | None = None,
        inputs_embeds: Tensor | None = None,
        use_cache: bool | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        output_router_logits: bool | None = None,
        cache_position: Tensor | None = None,
        **kwargs,
    ) -> MoeModelOutputWithPast:
        """Token ids (B, S) or embeddings (B, S, H) -> hidden states (B, S, H) and what the flags ask for.

        A flag that is None takes the config's value; `return_dict=False` gives a tuple.

        Args:
            attention_mask: (B, C), 1 for tokens, 0 for padding; or a (B, 1, S, C) mask made for the back end.
            position_ids: (B, S), counted from the cached positions if None. Where they start again within a row, a
                new document starts, which does not see those before it.
            past_key_values: a `Cache`, or the older tuple of (keys, values); it comes back in the same format. With
                `use_cache` and None here a new `DynamicCache` does, but not for packed rows, nor in training with
                gradient checkpointing.
            cache_position: (S,), the places in the cache that the new tokens take: those behind the cached ones.
            **kwargs: where documents packed in a row begin and end, by the names in `keywords.PACKING`.
        Returns:
            `hidden_states`: the embeddings and each layer's output (B, S, H), the last one normalised. `attentions`:
            (B, N, S, C) a layer. `router_logits`: (T, E) a layer, pre-softmax, with gradient.
        Raises:
            ValueError: unless exactly one of `input_ids` and `inputs_embeds` is given; if documents are packed in a
                row that continues a cache or is to be cached; if `cache_position` contradicts the cache; if
                `attention_mask` has another width than the row.
            TypeError: for an unknown keyword.
        """
        refuse_unknown(OlmoeModel.forward, kwargs, PACKING)
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError("give exactly one of input_ids and inputs_embeds")
        config = self.config
        output_attentions = config.output_attentions if output_attentions is None else output_attentions
        output_hidden_states = config.output_hidden_states if output_hidden_states is None else output_hidden_states
        output_router_logits = config.output_router_logits if output_router_logits is None else output_router_logits

        x = self.embed_tokens(input_ids) if inputs_embeds is None else inputs_embeds
        cache, legacy = as_cache(past_key_values, config)
        if cache is None and attention_mask is not None and attention_mask.shape[-1] != x.shape[1]:
            raise ValueError(f"attention_mask of shape {tuple(attention_mask.shape)} must have {x.shape[1]} columns")
        bounds = bounds_given(x, position_ids, attention_mask, kwargs, config, output_attentions)
        documents = documents_of(position_ids, attention_mask, x) if bounds is None else None
        if bounds is None:
            refuse_other_bounds(x, documents, kwargs, config)
        packed = bounds is not None or (documents is not None and not is_tracing(x))  # while tracing, it is not known
        cache = cache_for(config, cache, use_cache, packed, recomputed=self.gradient_checkpointing and self.training)
        following = next_positions(cache, cache_position, x)
        position_ids = following if position_ids is None else position_ids
        described = {"position_ids": position_ids, **kwargs}
        plan = plan_attention(config, x, attention_mask, cache, documents, bounds, output_attentions, described)
        cos_sin = self.rotary_emb(x, position_ids)

        hidden_states, router_logits, attentions = [], [], []
        for layer in self.layers:
            hidden_states.append(x)
            x, logits, weights = layer(x, cos_sin, past_key_values=cache, plan=plan)
            router_logits.append(logits)
            attentions.append(weights)
            if not output_hidden_states:  # keep nothing alive that nobody asked for
                hidden_states.clear()
        x = self.norm(x)
        hidden_states.append(x)
        return MoeModelOutputWithPast(
            last_hidden_state=x,
            past_key_values=to_legacy(cache) if legacy else cache,
            hidden_states=tuple(hidden_states) if output_hidden_states else None,
            attentions=tuple(attentions) if output_attentions else None,
            router_logits=tuple(router_logits) if output_router_logits else None,
        )


class OlmoeForCausalLM(OlmoePreTrainedModel, GenerationMixin):
    """OLMoE with its language-model head; `generate` comes from transformers."""

    _tied_weights_keys = {"lm_head.weight": "model.embed_tokens.weight"}

    def __init__(self, config: OlmoeConfig) -> None:
        super().__init__(config)
        config = self.config
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
        past_key_values: Cache | LegacyCache | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        use_cache: bool | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        output_router_logits: bool | None = None,
        cache_position: Tensor | None = None,
        num_logits_to_keep: int | None = None,
        logits_to_keep: int | slice | Tensor = 0,
        **kwargs,
    ) -> MoeCausalLMOutputWithPast:
        """Next-token logits (B, S, V), and the loss where `labels` (B, S; -100 is ignored) are given.

        With router logits asked for, `aux_loss` is transformers' pooled load balancing, `num_experts_per_tok` at
        balance, and `loss` includes `router_aux_loss_coef` times it: the documented numbers. Training does not use
        them; it adds its own objective (`olmoe_ft.objective`).

        Args:
            logits_to_keep: how many last positions get logits (0: all), or the positions themselves.
            num_logits_to_keep: its older name.
            **kwargs: for the loss `num_items_in_batch`, by which the sum over tokens is divided in the place of the
                number of labels here, and `shift_labels` (B, S), labels that are already where they are predicted; and
                what `OlmoeModel` takes.
        Other arguments, outputs and errors: see `OlmoeModel`.
        """
        refuse_unknown(OlmoeForCausalLM.forward, kwargs, (*LOSS, *PACKING))
        packing = {name: kwargs[name] for name in PACKING if name in kwargs}
        for_loss = {name: kwargs[name] for name in LOSS if name in kwargs}
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
            output_attentions=output_attentions,
            output_hidden_states=output_hidden_states,
            output_router_logits=output_router_logits,
            cache_position=cache_position,
            return_dict=True,
            **packing,
        )
        x = outputs.last_hidden_state
        if isinstance(logits_to_keep, int):
            logits_to_keep = slice(-(logits_to_keep or num_logits_to_keep or 0), None)
        logits = self.lm_head(x[:, logits_to_keep])

        loss = aux_loss = None
        if labels is not None:
            if labels.shape[1] != logits.shape[1]:  # each kept position predicts the token after it, kept or not
                for_loss["shift_labels"] = pad(labels, (0, 1), value=IGNORED)[:, 1:][:, logits_to_keep].contiguous()
            loss = self.loss_function(logits, labels, config.vocab_size, **for_loss)
        if output_router_logits:
            tokens = None  # all count
            if attention_mask is not None and len(attention_mask.shape) == 2:
                tokens = attention_mask[:, -x.shape[1] :].flatten()
            aux_loss = config.num_experts_per_tok * load_balancing_loss(
                outputs.router_logits, config.num_experts_per_tok, tokens, scope="pooled"
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
