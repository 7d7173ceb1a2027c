"""Two back ends of attention for documents that are packed in a row: each sees its own past, and a shared prompt.

They take the row as segments, in the terms of variable-length attention kernels, with T tokens laid end to end:

- The queries of segment i are the tokens `cu_seq_lens_q[i]` up to `cu_seq_lens_q[i + 1]`.
- Its keys are the entries `cu_seq_lens_k[i]` up to `cu_seq_lens_k[i + 1]` of `key_places` (C,), which are numbers of
  tokens; without `key_places`, those tokens themselves. The last keys of a segment are its queries, and a query sees
  no key behind its own.

A document alone is a segment whose keys are its queries. Two answers with one prompt are two segments: the first has
the prompt and the first answer as queries and keys; the second has the second answer as queries, and as keys the
prompt and that answer. Which back end runs is decided in `attention_plan.py`.

Shapes: B batch, S sequence, T = B·S tokens, N query heads, M key heads, D head size, G segments, C keys of them all.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import is_fake
from torch.nn import functional as F
from torch.nn.attention.varlen import varlen_attn

WORTH_A_CALL = 128 * 128  # query-key pairs that cost about as much as one more call of the kernel


class Segments(NamedTuple):
    """Segments as rows of about equal length, for a kernel that takes rows of one length."""

    rows: list[Tensor]  # for each call (rows, length): numbers of tokens; a shorter segment repeats its last one
    place: Tensor  # (T,) the index of each token's result among the results of all calls, laid end to end


def segments_of(
    tokens: int, cu_seq_lens_q: Tensor, cu_seq_lens_k: Tensor, max_length_k: int, key_places: Tensor | None = None
) -> Segments:
    """Arrange segments in rows for few calls; for the arguments see the head of this file.

    Args:
        tokens: T.
        cu_seq_lens_q, cu_seq_lens_k: (G + 1,); key_places: (C,). Their values are read on the host.
    """
    count = cu_seq_lens_q.numel() - 1
    if is_fake(cu_seq_lens_q):  # sizes alone: as if all were of the greatest length
        rows = cu_seq_lens_q.new_empty(count, max_length_k, dtype=torch.long)
        return Segments([rows], cu_seq_lens_q.new_empty(tokens, dtype=torch.long))
    starts, sizes = cu_seq_lens_k[:-1].long(), cu_seq_lens_k.diff().long()  # (G,) of keys
    queries = cu_seq_lens_q.diff().long()  # (G,)
    shift = torch.empty_like(starts)  # (G,) from a query's token number to the index of its result
    calls: list[Tensor] = []
    done = 0  # results of the calls so far, with those of repeated tokens
    for group in equal_length_groups(sizes.tolist()):
        members = torch.tensor(group, device=starts.device)  # segments of this call
        longest = int(sizes[group[0]])
        steps = torch.arange(longest, device=starts.device)
        keys = starts[members, None] + steps.minimum(sizes[members, None] - 1)  # (rows, length)
        calls.append(keys if key_places is None else key_places[keys])
        first = done + longest * torch.arange(len(group), device=starts.device)  # the index of each row's first result
        # a segment's first query comes behind its keys that are no queries
        shift[members] = first + sizes[members] - queries[members] - cu_seq_lens_q[members]
        done += len(group) * longest
    return Segments(calls, torch.arange(tokens, device=starts.device) + shift.repeat_interleave(queries))


def equal_length_groups(sizes: list[int]) -> list[list[int]]:
    """Group segments (their numbers, longest first) while padding the shorter ones costs less than another call."""
    groups: list[list[int]] = []
    longest = waste = 0
    for number in sorted(range(len(sizes)), key=lambda number: -sizes[number]):
        waste += longest**2 - sizes[number] ** 2
        if not groups or waste > WORTH_A_CALL:
            groups.append([])
            longest, waste = sizes[number], 0
        groups[-1].append(number)
    return groups


def segment_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: None,
    scaling: float,
    dropout: float = 0.0,
    *,
    segments: Segments,
) -> tuple[Tensor, None]:
    """Attention by segment on any device, as a few causal calls of SDPA and without a mask.

    No token sees the tokens that are repeated at a row's end. The scores of a shared prompt are computed once more in
    the second answer's row; its projections and experts are not.

    Args:
        query: (B, N, S, D); key and value: (B, M, S, D).
    Returns:
        (B, S, N, D), and no weights.
    """
    flat = [states.transpose(1, 2).flatten(0, 1) for states in (query, key, value)]  # (T, N or M, D)
    results = []
    for rows in segments.rows:
        queries, keys, values = (
            states.index_select(0, rows.flatten()).unflatten(0, rows.shape).transpose(1, 2) for states in flat
        )  # (rows, N or M, length, D)
        shared_heads = query.shape[1] != key.shape[1]
        attended = F.scaled_dot_product_attention(
            queries, keys, values, dropout_p=dropout, is_causal=True, scale=scaling, enable_gqa=shared_heads
        )
        results.append(attended.transpose(1, 2).flatten(0, 1))
    laid_out = results[0] if len(results) == 1 else torch.cat(results)
    return laid_out.index_select(0, segments.place).unflatten(0, (query.shape[0], -1)), None


def varlen_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: None,
    scaling: float,
    dropout: float = 0.0,
    *,
    cu_seq_lens_q: Tensor,
    cu_seq_lens_k: Tensor,
    max_length_q: int,
    max_length_k: int,
    key_places: Tensor | None = None,
) -> tuple[Tensor, None]:
    """Attention by segment in one call of torch's FlashAttention kernel (CUDA), causal from the bottom right.

    The kernel has no dropout (`attention_plan.varlen_works`).

    Args:
        query: (B, N, S, D); key and value: (B, M, S, D), fp16 or bf16.
    Returns:
        (B, S, N, D), and no weights.
    """
    assert not dropout
    flat_query, flat_key, flat_value = (states.transpose(1, 2).flatten(0, 1) for states in (query, key, value))
    if key_places is not None:
        flat_key, flat_value = flat_key.index_select(0, key_places), flat_value.index_select(0, key_places)
    if (groups := query.shape[1] // key.shape[1]) > 1:  # torch 2.11's kernel knows no shared heads
        flat_key, flat_value = flat_key.repeat_interleave(groups, dim=1), flat_value.repeat_interleave(groups, dim=1)
    output = varlen_attn(
        flat_query,  # (T, N, D)
        flat_key,
        flat_value,
        cu_seq_q=cu_seq_lens_q,
        cu_seq_k=cu_seq_lens_k,
        max_q=max_length_q,
        max_k=max_length_k,
        scale=scaling,
        window_size=(-1, 0),  # every earlier key, no later one
    )
    assert isinstance(output, Tensor)  # a pair only where the log-partition is asked for
    return output.unflatten(0, (query.shape[0], -1)), None
