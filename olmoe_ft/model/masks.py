"""Who may attend to whom: the past, no padding, and of several documents packed in one row only its own.

Shapes: B batch, S sequence, C key positions (cache included), H hidden.
"""

from copy import copy
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import pad
from transformers.cache_utils import Cache
from transformers.masking_utils import create_causal_mask
from transformers.utils.generic import is_flash_attention_requested
from transformers.utils.import_utils import is_tracing

from olmoe_ft.model.config import OlmoeConfig


class AttentionPlan(NamedTuple):
    """How every layer attends in one forward pass."""

    implementation: str  # the back end's name
    mask: Any  # what that back end takes: None, boolean or additive (B, 1, S, C), a block mask, or (B, C)
    arguments: dict[str, Tensor | int]  # its further arguments


def plan_attention(
    config: OlmoeConfig,
    x: Tensor,
    attention_mask: Tensor | None,
    cache: Cache | None,
    position_ids: Tensor,
    documents: Tensor | None,
    output_attentions: bool,
) -> AttentionPlan:
    """Choose the back end and build its mask: the config's, or the eager one where attention weights are asked for.

    Packed rows without padding need no mask where a kernel takes the documents' lengths: FlashAttention if it is the
    config's back end, and on CUDA torch's own in the place of SDPA.

    Args:
        x: (B, S, H), for its shape, dtype and device.
        documents: (B, S) from `documents_of`, or None.
    Raises:
        ValueError: if padding stands beside packed documents and the back end is FlashAttention, which cannot mask it.
    """
    implementation = "eager" if output_attentions else config._attn_implementation
    flash = is_flash_attention_requested(requested_attention_implementation=implementation)
    if documents is not None and attention_mask is None and not is_tracing(x):
        if flash or (implementation == "sdpa" and _varlen_works(config, x)):
            return AttentionPlan(implementation if flash else "varlen", None, varlen_arguments(documents))
    if documents is not None and attention_mask is not None and flash:
        raise ValueError(
            f"attn_implementation={implementation!r} cannot keep packed documents apart when attention_mask has "
            f"padding too: drop the padding and the mask, or use 'sdpa'"
        )
    if implementation != config._attn_implementation:
        config = copy(config)
        config._attn_implementation = implementation
    if documents is None:
        mask = create_causal_mask(config, x, attention_mask, cache, position_ids)
    elif attention_mask is None:  # transformers reads the documents from the positions, if there is no mask nor cache
        mask = create_causal_mask(config, x, None, None, position_ids)
    else:

        def same_document(row, head, query, key):
            return documents[row, query] == documents[row, key]

        mask = create_causal_mask(config, x, attention_mask, None, position_ids, and_mask_function=same_document)
    return AttentionPlan(implementation, mask, {})


def _varlen_works(config: OlmoeConfig, x: Tensor) -> bool:
    return x.is_cuda and x.dtype in (torch.float16, torch.bfloat16) and not config.attention_dropout


def packed_documents(
    position_ids: Tensor | None, attention_mask: Tensor | None, x: Tensor, cache: Cache | None, use_cache: bool | None
) -> tuple[Tensor | None, Tensor | None]:
    """The documents packed in the rows of `x`, (B, S) as from `documents_of` or None, and the padding mask to use.

    A padding mask without padding says nothing: it must not keep packed documents from being told apart, so it is
    dropped beside them. A mask with four dimensions is the caller's own and decides alone.

    Raises:
        ValueError: if documents are packed in a row that continues a cache or is to be cached: behind it, nothing
            could tell which of the cached tokens a new one may see.
    """
    if position_ids is None or (attention_mask is not None and attention_mask.ndim != 2):
        return None, attention_mask
    new = None if attention_mask is None else attention_mask[:, -x.shape[1] :]
    if is_tracing(x):
        return (None if cache is not None else documents_of(position_ids, new)), attention_mask
    documents = documents_of(position_ids, new)
    if documents is None:
        return None, attention_mask
    if cache is not None or use_cache:
        raise ValueError(
            "position_ids start again within a row, so it packs several documents, and they cannot be cached: pass "
            "use_cache=False and no past_key_values, or positions that go on counting"
        )
    return documents.expand(x.shape[:2]), None if new is None or new.all() else attention_mask


def documents_of(position_ids: Tensor, attention_mask: Tensor | None) -> Tensor | None:
    """Number the documents of each row, or None where every row holds one.

    A document starts where a token's position is not above that of the token before it, padding not counted. Under
    tracing, where nothing may depend on values, the numbers are always returned.

    Args:
        position_ids: (B, S), or (1, S) for all rows.
        attention_mask: (B, S), 1 for tokens and 0 for padding. None: no padding.
    Returns:
        (B, S) integers; those of padding mean nothing.
    """
    if attention_mask is None:
        starts = pad(position_ids.diff(dim=-1) <= 0, (1, 0))  # (B, S)
    else:
        tokens = attention_mask.bool()
        position_ids = position_ids.expand(tokens.shape)
        places = torch.arange(tokens.shape[1], device=tokens.device).expand(tokens.shape)
        last_token = places.where(tokens, -1).cummax(dim=-1).values  # (B, S): the place of the last token so far, or -1
        before = pad(last_token, (1, -1), value=-1)
        starts = tokens & (before >= 0) & (position_ids <= position_ids.gather(1, before.clamp(min=0)))
    if not is_tracing(starts) and not starts.any():
        return None
    return starts.cumsum(dim=-1)


def varlen_arguments(documents: Tensor) -> dict[str, Tensor | int]:
    """What variable-length attention kernels take, under transformers' names, for rows without padding.

    Args:
        documents: (B, S), numbered within each row.
    Returns:
        `cu_seq_lens_q` and `cu_seq_lens_k`, int32: where each document starts in the B·S tokens laid end to end, and
        B·S at last; `max_length_q` and `max_length_k`: the longest document's length.
    """
    starts = pad(documents.diff(dim=-1) != 0, (1, 0), value=True)  # (B, S): every row starts a document
    bounds = pad(starts.flatten().nonzero().flatten(), (0, 1), value=documents.numel()).to(torch.int32)
    longest = int(bounds.diff().max())
    return {"cu_seq_lens_q": bounds, "cu_seq_lens_k": bounds, "max_length_q": longest, "max_length_k": longest}
