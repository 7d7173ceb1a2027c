"""Stock's network with this project's attention, so that a comparison shows all else: experts, norms, rotation, head.

Without FlashAttention stock's packed rows go through SDPA under a dense mask of all tokens of the batch by all.
"""

from typing import Any

from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel

from olmoe_ft.model.attention_backends import segment_attention, segments_of, varlen_attention
from olmoe_ft.model.attention_plan import BOUNDS, varlen_works

NAME = "olmoe_by_document"


def attend_by_document(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, mask: None, scaling: float, **given: Any
) -> tuple[Tensor, None]:
    """What `olmoe_ft.model` does with the bounds that TRL's collator gives for packed rows.

    query (B, N, S, D), key and value (B, M, S, D) -> (B, S, N, D), and no weights.
    """
    bounds = {name: given[name] for name in BOUNDS}
    if varlen_works(module.config, query):
        return varlen_attention(module, query, key, value, None, scaling, **bounds)
    tokens = query.shape[0] * query.shape[2]
    segments = segments_of(tokens, bounds["cu_seq_lens_q"], bounds["cu_seq_lens_k"], bounds["max_length_k"])
    return segment_attention(module, query, key, value, None, scaling, segments=segments)


def use_equal_attention(model: Any) -> None:
    """Of a network of transformers', or of PEFT's around it; packed rows alone."""
    AttentionInterface.register(NAME, attend_by_document)
    AttentionMaskInterface.register(NAME, lambda *args, **kwargs: None)
    network: PreTrainedModel = model.get_base_model() if hasattr(model, "peft_config") else model
    network.set_attn_implementation(NAME)
