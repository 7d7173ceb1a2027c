"""Documents packed in one row never see each other."""

import pytest
import torch
from support.networks import assert_close, ours
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, DynamicCache, StaticCache
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from olmoe_ft.model import OlmoeConfig, attention_backends, attention_plan

LENGTHS = (5, 4, 7)
ROWS = torch.tensor([[5, 17, 33, 4, 60, 9, 21, 8, 7, 7, 12, 90, 31, 2, 44, 3], list(range(40, 56))])
POSITIONS = torch.cat([torch.arange(length) for length in LENGTHS]).repeat(2, 1)


def apart(model) -> torch.Tensor:
    """Every document in a forward pass of its own."""
    with torch.no_grad():
        return torch.cat([model(part).logits for part in ROWS.split(LENGTHS, dim=1)], dim=1)


@pytest.mark.parametrize("positions", [POSITIONS, POSITIONS[:1]], ids=["of each row", "of all rows"])
@pytest.mark.parametrize("mask", [None, torch.ones_like(ROWS)], ids=["no mask", "all-ones mask"])
@pytest.mark.parametrize("back_end", ["eager", "sdpa"])
def test_documents_are_isolated(back_end, mask, positions):
    model = ours(attn_implementation=back_end)
    with torch.no_grad():
        packed = model(ROWS, attention_mask=mask, position_ids=positions).logits
    assert_close(packed, apart(model))


def test_documents_are_isolated_under_flex_attention():
    model = ours(attn_implementation="flex_attention", hidden_size=64)  # it takes heads of 16 and more
    with torch.no_grad():
        packed = model(ROWS, attention_mask=torch.ones_like(ROWS), position_ids=POSITIONS).logits
        model.set_attn_implementation("sdpa")
    assert_close(packed, apart(model))


def test_no_gradient_crosses_a_document():
    model = ours()
    embeddings = model.model.embed_tokens(ROWS).detach().requires_grad_()
    output = model(inputs_embeds=embeddings, attention_mask=torch.ones_like(ROWS), position_ids=POSITIONS)
    output.logits[:, 5:9].square().sum().backward()
    assert not embeddings.grad[:, :5].any() and not embeddings.grad[:, 9:].any()
    assert embeddings.grad[:, 5:9].any()


@pytest.mark.parametrize("back_end", ["eager", "sdpa"])
def test_padding_between_and_around_documents(back_end):
    """Left, between two documents, inside one, and right; what is left is each document alone."""
    model = ours(attn_implementation=back_end)
    row = torch.tensor([[1, 5, 17, 33, 1, 4, 60, 1, 9, 21, 1]])
    mask = torch.tensor([[0, 1, 1, 1, 0, 1, 1, 0, 1, 1, 0]])
    positions = torch.tensor([[1, 0, 1, 2, 1, 0, 1, 1, 2, 3, 1]])
    with torch.no_grad():
        packed = model(row, attention_mask=mask, position_ids=positions).logits
        first, second = (model(torch.tensor([ids])).logits for ids in ([5, 17, 33], [4, 60, 9, 21]))
    assert_close(packed[:, 1:4], first)
    assert_close(packed[:, [5, 6, 8, 9]], second)


def test_positions_that_go_on_are_one_document():
    """Padding, in any of the usual position conventions, and gaps under a mask do not start documents."""
    usual = torch.tensor([[1, 1, 0, 1, 2], [0, 0, 0, 1, 2], [0, 1, 2, 1, 1], [0, 1, 2, 3, 4], [3, 5, 9, 10, 20]])
    mask = torch.tensor([[0, 0, 1, 1, 1], [0, 0, 1, 1, 1], [1, 1, 1, 0, 0], [1, 1, 1, 0, 0], [1, 1, 1, 1, 1]])
    assert attention_plan.documents_of(usual, mask, usual[..., None]) is None
    assert attention_plan.documents_of(usual[3:], None, usual[3:, :, None]) is None


def test_documents_are_numbered():
    positions = torch.tensor([[0, 1, 0, 1, 2, 0]])
    x = torch.zeros(1, 6, 4)
    assert attention_plan.documents_of(positions, None, x).tolist() == [[0, 0, 1, 1, 1, 2]]
    assert attention_plan.documents_of(positions, torch.tensor([[1, 1, 1, 1, 1, 0]]), x)[0, :5].tolist() == [
        0,
        0,
        1,
        1,
        1,
    ]


def test_packed_rows_are_not_cached():
    model = ours()
    assert model(ROWS, position_ids=POSITIONS).past_key_values is None
    with pytest.raises(ValueError, match="use_cache=False"):
        model(ROWS, position_ids=POSITIONS, use_cache=True)
    with pytest.raises(ValueError, match="no past_key_values"):
        model(ROWS, position_ids=POSITIONS, past_key_values=model(ROWS).past_key_values)


def test_compiled_with_a_cache_nothing_leaks_either():
    """While tracing nobody can look at the positions and refuse: the documents are masked instead."""
    model = ours()
    for cache in (DynamicCache(config=model.config), StaticCache(config=model.config, max_cache_len=20)):
        torch._dynamo.reset()
        with torch.no_grad():
            compiled = torch.compile(model, backend="eager")
            assert_close(compiled(ROWS, position_ids=POSITIONS, past_key_values=cache).logits, apart(model))


def test_a_back_end_without_masks_is_refused():
    AttentionInterface.register("maskless", sdpa_attention_forward)
    with pytest.raises(ValueError, match="'maskless' cannot keep the documents of packed rows apart"):
        ours(attn_implementation="maskless")(ROWS, position_ids=POSITIONS)


@pytest.mark.parametrize(
    "told",
    [
        {"cu_seq_lens_q": torch.tensor([0, 5, 16, 21, 32], dtype=torch.int32)},
        {"seq_idx": torch.tensor([[0] * 5 + [1] * 11])},
    ],
)
def test_documents_told_by_other_means_than_positions_are_refused(told):
    model = ours()
    with pytest.raises(ValueError, match="pass those, starting again with each document"):
        model(ROWS, **told)
    with torch.no_grad():
        assert_close(model(ROWS, position_ids=POSITIONS, **told).logits, apart(model))


def test_gaps_between_positions_mean_the_same_with_and_without_mask_or_cache():
    model = ours()
    with torch.no_grad():
        first, *others = (
            model(ROWS, position_ids=torch.arange(16)[None] * 3, **arguments).logits
            for arguments in ({}, {"use_cache": False}, {"use_cache": False, "attention_mask": torch.ones_like(ROWS)})
        )
    for other in others:
        assert torch.equal(first, other)


def test_the_documents_bounds_for_variable_length_kernels():
    """Rows of 2 + 3 and 5: they start at 0, 2 and 5 of the 10 tokens laid end to end; the longest has 5."""
    arguments = attention_plan.varlen_arguments(torch.tensor([[0, 0, 1, 1, 1], [0, 0, 0, 0, 0]]))
    assert arguments["cu_seq_lens_q"].tolist() == arguments["cu_seq_lens_k"].tolist() == [0, 2, 5, 10]
    assert arguments["cu_seq_lens_q"].dtype == torch.int32
    assert arguments["max_length_q"] == arguments["max_length_k"] == 5


def test_variable_length_attention_around_its_kernel(monkeypatch):
    """All but torch's kernel itself, which needs CUDA: in its place, SDPA on each document alone."""

    def kernel(query, key, value, cu_seq_q, cu_seq_k, max_q, max_k, *, scale, window_size):
        assert window_size == (-1, 0) and cu_seq_q is cu_seq_k and max_q == max_k == 7
        parts = [
            scaled_dot_product_attention(
                *(states[start:end].transpose(0, 1) for states in (query, key, value)),
                scale=scale,
                is_causal=True,
            ).transpose(0, 1)
            for start, end in zip(cu_seq_q[:-1], cu_seq_q[1:], strict=True)
        ]
        return torch.cat(parts)

    monkeypatch.setattr(attention_backends, "varlen_attn", kernel)
    monkeypatch.setattr(attention_plan, "varlen_works", lambda config, x: True)
    for heads in (4, 2):
        model = ours(num_key_value_heads=heads)
        with torch.no_grad():
            packed = model(ROWS, attention_mask=torch.ones_like(ROWS), position_ids=POSITIONS).logits
        assert_close(packed, apart(model))


@pytest.mark.parametrize(
    ("size", "dtype", "dropout", "works"),
    [
        (32, torch.bfloat16, 0.0, True), (256, torch.float16, 0.0, True), (12, torch.bfloat16, 0.0, False),
        (264, torch.bfloat16, 0.0, False), (32, torch.float32, 0.0, False), (32, torch.bfloat16, 0.1, False),
    ],
)  # fmt: skip
def test_what_the_variable_length_kernel_refuses_goes_document_by_document(size, dtype, dropout, works):
    """On a GPU, by fake tensors."""
    config = OlmoeConfig(hidden_size=2 * size, num_attention_heads=2, attention_dropout=dropout)
    with FakeTensorMode():
        x, bounds = torch.empty(1, 16, 2 * size, dtype=dtype, device="cuda"), torch.empty(3, dtype=torch.int32)
        given = dict(zip(attention_plan.BOUNDS, (bounds, bounds, 8, 8), strict=True))
        plan = attention_plan.plan_attention(config, x, None, None, None, given, False, {})
    assert plan.implementation == ("varlen" if works else "segments")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_variable_length_attention_on_cuda():
    model = ours(hidden_size=64).cuda().bfloat16()
    with torch.no_grad():
        packed = model(ROWS.cuda(), position_ids=POSITIONS.cuda()).logits
        alone = torch.cat([model(part.cuda()).logits for part in ROWS.split(LENGTHS, dim=1)], dim=1)
    assert_close(packed, alone, 2e-2)
