"""The key/value cache in both documented formats, and the positions of new tokens behind it.

Shapes: B batch, S new tokens, M key heads, C cached positions, D head size.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from transformers.cache_utils import Cache, DynamicCache
from transformers.utils.import_utils import is_tracing

from olmoe_ft.model.config import OlmoeConfig
from olmoe_ft.model.row_cache import RowCache

LegacyCache = Sequence[Sequence[Tensor]]  # keys and values of each layer, (B, M, C, D) each


def as_cache(past_key_values: Cache | LegacyCache | None, config: OlmoeConfig) -> tuple[Cache | None, bool]:
    """The cache as a `Cache`, and whether it was given in the older format, a tuple of (keys, values) tuples.

    Raises:
        ValueError: unless the older format has a pair for every layer.
    """
    if past_key_values is None or isinstance(past_key_values, Cache):
        return past_key_values, False
    if len(past_key_values) != config.num_hidden_layers or any(len(layer) != 2 for layer in past_key_values):
        raise ValueError(
            f"past_key_values as a tuple must hold a (keys, values) pair for each of the {config.num_hidden_layers} "
            f"layers, got {[len(layer) for layer in past_key_values]} tensors"
        )
    return DynamicCache(past_key_values, config=config), True


def cache_for(
    config: OlmoeConfig, cache: Cache | None, use_cache: bool | None, packed: bool, recomputed: bool
) -> Cache | None:
    """The cache of a forward pass: the given one, a new one if wanted, or None.

    Args:
        use_cache: None takes the config's value.
        packed: whether rows pack several documents. They are cached by a `RowCache` alone: with others nothing could
            tell later which of them a cached key belongs to.
        recomputed: whether layers run again in the backward pass, which would write into the cache twice.
    Raises:
        ValueError: if a cache is given or asked for and rows are packed.
    """
    if isinstance(cache, RowCache) and cache.reads_prompts:
        return cache
    if packed and (cache is not None or use_cache):
        raise ValueError(
            "position_ids start again within a row, so it packs several documents, and nothing could tell later "
            "which of them a cached key belongs to: pass use_cache=False and no past_key_values"
        )
    wanted = config.use_cache if use_cache is None else use_cache
    if cache is None and wanted and not packed and not recomputed:
        return DynamicCache(config=config)
    return cache


def to_legacy(cache: Cache) -> tuple[tuple[Tensor, Tensor], ...]:
    """A `Cache` as a tuple of (keys, values) tuples, (B, M, C, D) each."""
    return tuple((layer.keys, layer.values) for layer in cache.layers)


def next_positions(cache: Cache | None, cache_position: Tensor | None, tokens: Tensor) -> Tensor:
    """Positions (1, S) of new tokens (B, S, …): those that follow the cached ones.

    Raises:
        ValueError: if `cache_position` names other positions than the cache is about to fill.
    """
    seen = cache.get_seq_length() if cache is not None else 0
    positions = torch.arange(tokens.shape[1], device=tokens.device) + seen
    if cache_position is not None and not is_tracing(tokens):
        given = torch.as_tensor(cache_position).tolist()
        if given != (expected := positions.tolist()):
            raise ValueError(
                f"cache_position={given} must be {expected}: {int(seen)} positions are cached, and new tokens are "
                f"written behind them"
            )
    return positions.unsqueeze(0)
