"""How a forward pass attends: which back end runs, with which mask, and where packed documents begin and end.

A token attends to the past, to no padding, and of several documents packed in one row to its own alone.
`plan_attention` decides once for all layers; the back ends are in `attention.py` and `attention_backends.py`.

Shapes: B batch, S sequence, C key positions (cache included), H hidden.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import pad
from transformers.cache_utils import Cache
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS, create_causal_mask
from transformers.utils.generic import is_flash_attention_requested
from transformers.utils.import_utils import is_tracing

from olmoe_ft.model.attention_backends import segments_of
from olmoe_ft.model.config import OlmoeConfig
from olmoe_ft.model.implementations import attention_implementation, with_attention

BOUNDS = ("cu_seq_lens_q", "cu_seq_lens_k", "max_length_q", "max_length_k")
Bounds = dict[str, Any]  # those four, and `key_places` where segments share keys


class AttentionPlan(NamedTuple):
    """How every layer attends in one forward pass."""

    implementation: str  # the back end's name
    mask: Any  # what that back end takes: None, boolean or additive (B, 1, S, C), a block mask, or (B, C)
    arguments: dict[str, Any]  # its further arguments


def plan_attention(
    config: OlmoeConfig,
    x: Tensor,
    attention_mask: Tensor | None,
    cache: Cache | None,
    documents: Tensor | None,
    bounds: Bounds | None,
    output_attentions: bool,
    described: dict[str, Any],
) -> AttentionPlan:
    """Choose the back end and build its mask: the config's, or the eager one where attention weights are asked for.

    Packed rows without padding need no mask: FlashAttention takes the documents' bounds if it is the config's back end;
    in the place of SDPA torch's variable-length kernel does on CUDA, and SDPA document by document elsewhere.

    Args:
        x: (B, S, H), for its shape, dtype and device.
        attention_mask: (B, C), 1 for tokens; or the caller's own (B, 1, S, C), boolean or additive, taken as it is.
        documents: (B, S) from `documents_of`, or None.
        bounds: from `bounds_given`, in the place of documents, or None.
        described: positions and packing as the caller gave them, which transformers' back ends take beside the mask.
    Raises:
        ValueError: if the back end cannot keep the documents apart.
    """
    implementation = "eager" if output_attentions else attention_implementation(config)
    beside: dict[str, Any] = (
        {} if implementation == "eager" else described
    )  # the eager one is ours, and reads the mask alone
    flash = is_flash_attention_requested(requested_attention_implementation=implementation)
    if bounds is not None:
        return _plan_by_bounds(implementation, flash, bounds, config, x, described)
    if documents is not None and not is_tracing(x):
        # in half precision a CPU keeps the mask: so every rounding is transformers'
        fast = flash or (implementation == "sdpa" and (x.is_cuda or x.dtype in (torch.float32, torch.float64)))
        if fast and (attention_mask is None or attention_mask.all()):
            return _plan_by_bounds(implementation, flash, varlen_arguments(documents), config, x, described)
        if flash or implementation not in ALL_MASK_ATTENTION_FUNCTIONS:
            padded = " when attention_mask has padding too" if flash else ""
            raise ValueError(
                f"attn_implementation={implementation!r} cannot keep the documents of packed rows apart{padded}: "
                f"use 'sdpa'"
            )
    if attention_mask is not None and len(attention_mask.shape) == 4:  # a flex block mask has no ndim
        if implementation == "eager" and not attention_mask.is_floating_point():
            hidden = torch.finfo(x.dtype).min
            attention_mask = torch.zeros_like(attention_mask, dtype=x.dtype).masked_fill(attention_mask == 0, hidden)
        return AttentionPlan(implementation, attention_mask, beside)
    config = with_attention(config, implementation)
    same_document = None if documents is None else _same_document(documents, cache)
    mask = create_causal_mask(config, x, attention_mask, cache, and_mask_function=same_document)
    return AttentionPlan(implementation, mask, beside)


def _plan_by_bounds(
    implementation: str, flash: bool, bounds: Bounds, config: OlmoeConfig, x: Tensor, described: dict[str, Any]
) -> AttentionPlan:
    """Without a mask, by the documents' bounds: FlashAttention, torch's variable-length kernel, or SDPA by segment."""
    if flash:
        return AttentionPlan(implementation, None, {**described, **bounds})
    if varlen_works(config, x):
        return AttentionPlan("varlen", None, bounds)
    longest, key_places = bounds["max_length_k"], bounds.get("key_places")
    tokens = x.shape[0] * x.shape[1]
    segments = segments_of(tokens, bounds["cu_seq_lens_q"], bounds["cu_seq_lens_k"], longest, key_places)
    return AttentionPlan("segments", None, {"segments": segments})


def _same_document(documents: Tensor, cache: Cache | None) -> Callable:
    """The mask function "query and key are of one document"; what is cached (while tracing) belongs to the first."""
    if cache is None:
        return lambda row, head, query, key: documents[row, query] == documents[row, key]
    seen, last = cache.get_seq_length(), documents.shape[1] - 1

    def document(row, place):
        return documents[row, (place - seen).clamp(0, last)]

    return lambda row, head, query, key: document(row, query) == document(row, key)


def varlen_works(config: OlmoeConfig, x: Tensor) -> bool:
    """Whether torch's variable-length kernel takes these inputs: on CUDA, in half precision, without dropout.

    It is FlashAttention 2, whose heads have a multiple of 8 numbers and 256 at most; SDPA would fill others up.
    """
    size = config.hidden_size // config.num_attention_heads
    if size % 8 or size > 256:
        return False
    return x.is_cuda and x.dtype in (torch.float16, torch.bfloat16) and not config.attention_dropout


def documents_of(position_ids: Tensor | None, attention_mask: Tensor | None, x: Tensor) -> Tensor | None:
    """Number the documents of each row, or None where every row holds one.

    A document starts where a token's position is not above that of the token before it, padding not counted. Under
    tracing, where nothing may depend on values, the numbers are always returned.

    Args:
        position_ids: (B, S), or (1, S) for all rows. None: they go on counting.
        attention_mask: (B, C), 1 for tokens and 0 for padding. None: no padding. With four dimensions it is the
            caller's own and alone decides who sees whom.
        x: (B, S, H), for its shape.
    Returns:
        (B, S) integers, from 0; those of padding mean nothing.
    """
    rows, length = x.shape[:2]
    if position_ids is None or length == 1 or (attention_mask is not None and len(attention_mask.shape) == 4):
        return None
    position_ids = position_ids.expand(rows, length)
    if attention_mask is None:
        starts = pad(position_ids.diff(dim=-1) <= 0, (1, 0))  # (B, S)
    else:
        tokens = attention_mask[:, -length:].bool()
        places = torch.arange(length, device=tokens.device).expand(tokens.shape)
        last_token = places.where(tokens, -1).cummax(dim=-1).values  # (B, S): the place of the last token so far, or -1
        before = pad(last_token, (1, -1), value=-1)
        starts = tokens & (before >= 0) & (position_ids <= position_ids.gather(1, before.clamp(min=0)))
    if not is_tracing(starts) and not starts.any():
        return None
    return starts.cumsum(dim=-1)


def varlen_arguments(documents: Tensor) -> Bounds:
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


def bounds_given(
    x: Tensor,
    position_ids: Tensor | None,
    attention_mask: Tensor | None,
    arguments: dict[str, Any],
    config: OlmoeConfig,
    output_attentions: bool,
) -> Bounds | None:
    """The documents' bounds as a collator worked them out, for a back end that takes them: no waiting for the device.

    Without positions, or beside a mask, they are not used: `documents_of` then finds the documents.

    Raises:
        ValueError: `key_places` lets segments share keys, and the back end cannot.
    """
    sdpa = attention_implementation(config) == "sdpa" and not output_attentions
    flash = is_flash_attention_requested(config) and "key_places" not in arguments
    known = position_ids is not None and attention_mask is None and all(name in arguments for name in BOUNDS)
    if known and (sdpa or flash):
        return {name: arguments[name] for name in (*BOUNDS, "key_places") if name in arguments}
    if arguments.get("key_places") is not None:
        raise ValueError(
            f"key_places, by which two answers share a prompt, needs attn_implementation='sdpa' (it is "
            f"{attention_implementation(config)!r}), position_ids, {', '.join(BOUNDS)}, and no attention_mask"
        )
    return None


def refuse_other_bounds(x: Tensor, documents: Tensor | None, arguments: dict[str, Any], config: OlmoeConfig) -> None:
    """Raise `ValueError` where `cu_seq_lens_q` or `seq_idx` describe packed documents and the positions do not.

    FlashAttention reads `cu_seq_lens_q` itself. All other back ends would ignore both, and the documents would leak.
    """
    if documents is not None or is_flash_attention_requested(config):
        return
    bounds, numbers = arguments.get("cu_seq_lens_q"), arguments.get("seq_idx")
    if (bounds is not None and len(bounds) - 1 > x.shape[0]) or (numbers is not None and numbers.diff(dim=-1).any()):
        raise ValueError(
            f"cu_seq_lens_q or seq_idx names several documents in a row, which "
            f"attn_implementation={attention_implementation(config)!r} reads from position_ids: pass those, starting "
            f"again with each document"
        )
