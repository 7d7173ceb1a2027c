"""Attention by segment: documents apart, and two answers behind one prompt."""

import pytest
import torch
from support.networks import assert_close, ours

from olmoe_ft.model import attention_backends, attention_plan
from olmoe_ft.model.attention_backends import (
    WORTH_A_CALL,
    Segments,
    equal_length_groups,
    segment_attention,
    segments_of,
    varlen_attention,
)

PROMPT, CHOSEN, REJECTED = [5, 17, 33, 4], [60, 9, 21], [8, 7, 7, 12, 90]
SHARED = {
    "input_ids": torch.tensor([[*PROMPT, *CHOSEN, *REJECTED, 31, 2]]),  # and a document of two tokens behind the pair
    "position_ids": torch.tensor([[0, 1, 2, 3, 4, 5, 6, 4, 5, 6, 7, 8, 0, 1]]),
    "cu_seq_lens_q": torch.tensor([0, 7, 12, 14], dtype=torch.int32),
    "cu_seq_lens_k": torch.tensor([0, 7, 16, 18], dtype=torch.int32),
    "max_length_q": 7,
    "max_length_k": 9,
    "key_places": torch.tensor([0, 1, 2, 3, 4, 5, 6, 0, 1, 2, 3, 7, 8, 9, 10, 11, 12, 13]),
}


def states(*shape: int) -> tuple[torch.Tensor, ...]:
    return tuple(torch.randn(shape, dtype=torch.double, requires_grad=True) for _ in range(3))


def by_mask(query, key, value, visible) -> torch.Tensor:
    """`softmax(q k^T + mask) v` of (N, T, D) with `visible` (T, T)."""
    scores = (query @ key.transpose(-1, -2)).masked_fill(~visible, -torch.inf)
    return scores.softmax(-1) @ value


def visible_of(bounds: dict) -> torch.Tensor:
    """Who may see whom, token by token, by the bounds' definition: the keys up to each query, from the bottom right."""
    queries, keys = bounds["cu_seq_lens_q"].tolist(), bounds["cu_seq_lens_k"].tolist()
    visible = torch.zeros(queries[-1], queries[-1], dtype=torch.bool)
    for segment in range(len(queries) - 1):
        count, places = queries[segment + 1] - queries[segment], bounds["key_places"][keys[segment] : keys[segment + 1]]
        for query in range(count):
            visible[queries[segment] + query, places[: len(places) - count + query + 1]] = True
    return visible


def test_the_layout_of_a_pair_and_a_document_by_hand(monkeypatch):
    """Each length a call of its own: rejected with its prompt (9), chosen with its prompt (7), the document (2).

    The tokens' results then stand at: prompt and chosen 9 to 15, rejected behind the prompt's four at 4 to 8, 16, 17.
    """
    monkeypatch.setattr(attention_backends, "WORTH_A_CALL", 0)
    names = ("cu_seq_lens_q", "cu_seq_lens_k", "max_length_k", "key_places")
    segments = segments_of(14, *(SHARED[name] for name in names))
    expected = [[[0, 1, 2, 3, 7, 8, 9, 10, 11]], [[0, 1, 2, 3, 4, 5, 6]], [[12, 13]]]
    assert [rows.tolist() for rows in segments.rows] == expected
    assert segments.place.tolist() == [9, 10, 11, 12, 13, 14, 15, 4, 5, 6, 7, 8, 16, 17]


def test_short_segments_share_a_call_and_repeat_their_last_token():
    segments = segments_of(5, *[torch.tensor([0, 2, 5])] * 2, 3)
    assert [rows.tolist() for rows in segments.rows] == [[[2, 3, 4], [0, 1, 1]]]
    assert segments.place.tolist() == [3, 4, 0, 1, 2]


@pytest.mark.parametrize("seed", range(5))
def test_groups_hold_every_segment_once_and_waste_less_than_a_call(seed):
    sizes = torch.randint(1, 2000, (40,), generator=torch.Generator().manual_seed(seed)).tolist()
    groups = equal_length_groups(sizes)
    assert sorted(number for group in groups for number in group) == list(range(40))
    for group in groups:
        assert sum(sizes[group[0]] ** 2 - sizes[number] ** 2 for number in group) <= WORTH_A_CALL
    assert len(equal_length_groups([30] * 100)) == 1


@pytest.mark.parametrize("heads", [4, 2])
def test_segment_attention_and_its_gradient_equal_a_mask(heads):
    query, key, value = states(1, 4, 14, 8)
    key, value = (tensor[:, :heads] for tensor in (key, value))
    names = ("cu_seq_lens_q", "cu_seq_lens_k", "max_length_k", "key_places")
    segments = segments_of(14, *(SHARED[name] for name in names))
    found, _ = segment_attention(torch.nn.Module(), query, key, value, None, 1.0, segments=segments)
    repeated = [tensor[0].repeat_interleave(4 // heads, dim=0) for tensor in (key, value)]
    expected = by_mask(query[0], *repeated, visible_of(SHARED)).transpose(0, 1)[None]
    assert_close(found, expected, 1e-12)
    weights = torch.randn_like(found)
    sums = (found * weights).sum(), (expected * weights).sum()
    gradients = [torch.autograd.grad(total, (query, key, value), retain_graph=True) for total in sums]
    assert_close(gradients[0], gradients[1], 1e-12)


def test_variable_length_attention_gathers_the_shared_keys(monkeypatch):
    """The CUDA kernel's place is taken by its definition: causal from the bottom right, segment by segment."""

    def kernel(query, key, value, cu_seq_q, cu_seq_k, max_q, max_k, *, scale, window_size):
        assert (max_q, max_k, window_size) == (7, 9, (-1, 0))
        parts = []
        for start, end, first, last in zip(cu_seq_q, cu_seq_q[1:], cu_seq_k, cu_seq_k[1:], strict=False):
            part = [tensor.transpose(0, 1) for tensor in (query[start:end], key[first:last], value[first:last])]
            square = torch.ones(end - start, last - first, dtype=torch.bool)
            parts.append(by_mask(*part, square.tril(last - first - (end - start))).transpose(0, 1))
        return torch.cat(parts)

    monkeypatch.setattr(attention_backends, "varlen_attn", kernel)
    query, key, value = states(1, 4, 14, 8)
    bounds = {name: SHARED[name] for name in (*attention_plan.BOUNDS, "key_places")}
    found, _ = varlen_attention(torch.nn.Module(), query, key, value, None, 1.0, **bounds)
    assert_close(found, by_mask(query[0], key[0], value[0], visible_of(SHARED)).transpose(0, 1)[None], 1e-12)


@pytest.mark.parametrize("heads", [4, 2])
@pytest.mark.parametrize("checkpointing", [None, False, True])
def test_answers_behind_a_shared_prompt_are_as_if_each_had_its_own(heads, checkpointing):
    """Logits of all tokens, and the gradient of the answers' likelihoods, in fp32 to 1e-5."""
    model = ours(num_key_value_heads=heads).train()
    if checkpointing is not None:
        model.gradient_checkpointing_enable({"use_reentrant": checkpointing})
    together = model(**SHARED).logits[0]
    rows = [[*PROMPT, *CHOSEN], [*PROMPT, *REJECTED], [31, 2]]
    chosen, rejected, other = (model(torch.tensor([row])).logits[0] for row in rows)
    assert_close(together, torch.cat([chosen, rejected[4:], other]))

    def likelihood(first, second):
        log_probs = [logits.log_softmax(-1) for logits in (first, second)]
        tokens = [(3 + step, token) for step, token in enumerate(CHOSEN)], list(enumerate(REJECTED, start=3))
        return sum(table[place, token] for table, each in zip(log_probs, tokens, strict=True) for place, token in each)

    packed = likelihood(together, torch.cat([together[:4], together[7:12]]))
    apart = likelihood(chosen, rejected)
    assert_close(packed, apart)
    gradients = []
    for total in (packed, apart):
        model.zero_grad()
        total.backward()
        gradients.append({name: parameter.grad.clone() for name, parameter in model.named_parameters()})
    assert_close(gradients[0], gradients[1], 2e-5)


@pytest.mark.parametrize("back_end", ["eager", "flex_attention"])
def test_back_ends_that_cannot_share_keys_say_so(back_end):
    with pytest.raises(ValueError, match=rf"needs attn_implementation='sdpa' \(it is '{back_end}'\)"):
        ours(attn_implementation=back_end)(**SHARED)


def test_bounds_without_positions_or_beside_a_mask_are_not_believed():
    """They would be about other tokens than the caller means."""
    model, bounds = ours(), {name: value for name, value in SHARED.items() if name not in ("input_ids", "key_places")}
    ids, positions = SHARED["input_ids"], bounds.pop("position_ids")
    with torch.no_grad():
        masked = model(ids, position_ids=positions, attention_mask=torch.ones_like(ids), **bounds).logits
        found = model(ids, position_ids=positions).logits
    assert_close(masked, found)
    with pytest.raises(ValueError, match="pass those"):
        model(ids, **bounds)


def test_sizes_are_enough_where_there_are_no_values():
    """On fake tensors, for the planner: as if all segments were of the greatest length."""
    from torch._subclasses.fake_tensor import FakeTensorMode

    with FakeTensorMode():
        segments = segments_of(14, *[torch.zeros(4, dtype=torch.int32)] * 2, 9)
    assert isinstance(segments, Segments)
    assert [tuple(rows.shape) for rows in segments.rows] == [(3, 9)] and tuple(segments.place.shape) == (14,)
