"""What each documented argument of `forward` does, and the shape of each documented output."""

import pytest
import torch
from support.networks import assert_close, ours
from torch.nn import functional as F
from transformers import DynamicCache, StaticCache

IDS = torch.tensor([[5, 17, 33, 4, 60, 9, 21, 8], [7, 7, 12, 90, 31, 2, 44, 3]])


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return ours(num_key_value_heads=2)


@pytest.fixture(autouse=True)
def without_gradient():
    with torch.no_grad():
        yield


def test_every_documented_output_has_its_documented_shape(model):
    flags = dict.fromkeys(("output_attentions", "output_hidden_states", "output_router_logits", "use_cache"), True)
    output = model(IDS, labels=IDS, **flags)
    assert output.loss.shape == output.aux_loss.shape == ()
    assert output.logits.shape == (2, 8, 97)
    assert [layer.shape for layer in output.hidden_states] == [(2, 8, 32)] * 4
    assert [layer.shape for layer in output.attentions] == [(2, 4, 8, 8)] * 3
    assert [layer.shape for layer in output.router_logits] == [(16, 8)] * 3
    assert [layer.keys.shape for layer in output.past_key_values.layers] == [(2, 2, 8, 8)] * 3
    plain = model(IDS)
    assert plain.loss is plain.aux_loss is plain.hidden_states is plain.attentions is plain.router_logits is None


def test_inputs_embeds_replace_input_ids(model):
    embeddings = model.model.embed_tokens(IDS)
    assert torch.equal(model(inputs_embeds=embeddings).logits, model(IDS).logits)
    for both_or_none in ({"input_ids": IDS, "inputs_embeds": embeddings}, {}):
        with pytest.raises(ValueError, match="exactly one of input_ids and inputs_embeds"):
            model(**both_or_none)


FLEX = pytest.param(
    "flex_attention",
    marks=pytest.mark.skipif(
        not torch.cuda.is_available() and torch.backends.cpu.get_cpu_capability() != "AVX512",
        reason="torch compiles flex attention with a padding mask to wrong code for CPUs without AVX-512 "
        "(2.13; training on a CPU refuses it)",
    ),
)


@pytest.mark.parametrize("back_end", ["eager", "sdpa", FLEX])
def test_attention_mask_hides_tokens(back_end):
    model = ours(attn_implementation=back_end, hidden_size=64)  # flex attention takes heads of 16 and more
    mask = torch.ones_like(IDS)
    mask[:, 2] = 0
    changed = IDS.clone()
    changed[:, 2] = 50
    visible = [0, 1, 3, 4, 5, 6, 7]
    first, second = (model(ids, attention_mask=mask).logits[:, visible] for ids in (IDS, changed))
    assert_close(first, second)
    assert (model(IDS).logits - model(changed).logits)[:, visible].abs().max() > 1e-3


def test_a_mask_of_four_dimensions_is_taken_as_it_is(model):
    own = torch.ones(8, 8, dtype=torch.bool).tril().triu(-1)[None, None]  # itself and the token before it
    output = model(IDS, attention_mask=own, output_hidden_states=True).hidden_states[1]
    changed = IDS.clone()
    changed[:, 0] = 50
    after = model(changed, attention_mask=own, output_hidden_states=True).hidden_states[1]
    assert (output - after)[:, 1].abs().max() > 1e-3
    assert_close(output[:, 2:], after[:, 2:])


@pytest.mark.parametrize("back_end", ["eager", "sdpa"])
def test_a_boolean_mask_of_four_dimensions_hides_under_every_back_end(back_end):
    model = ours(attn_implementation=back_end)
    causal = torch.ones(8, 8, dtype=torch.bool).tril()[None, None]
    for flags in ({}, {"output_attentions": True}):
        assert_close(model(IDS, attention_mask=causal, **flags).logits, model(IDS).logits)


def test_a_mask_of_another_width_than_the_row_is_refused(model):
    with pytest.raises(ValueError, match=r"attention_mask of shape \(2, 9\) must have 8 columns"):
        model(IDS, attention_mask=torch.ones(2, 9))


def test_position_ids_are_relative(model):
    """RoPE: only distances matter (Su et al. 2021, section 3.4.3). Further apart is something else."""
    places = torch.arange(8).unsqueeze(0)
    plain = model(IDS).logits
    assert_close(model(IDS, position_ids=places + 11).logits, plain)
    assert (model(IDS, position_ids=places * 3).logits - plain).abs().max() > 1e-3


def test_past_key_values_continue_a_text_in_both_formats(model):
    whole = model(IDS).logits[:, 5:]
    past = model(IDS[:, :5], use_cache=True).past_key_values
    legacy = tuple((layer.keys.clone(), layer.values.clone()) for layer in past.layers)
    output = model(IDS[:, 5:], past_key_values=past)
    assert_close(output.logits, whole)
    assert output.past_key_values is past and past.get_seq_length() == 8
    older = model(IDS[:, 5:], past_key_values=legacy)
    assert_close(older.logits, whole)
    assert isinstance(older.past_key_values, tuple)
    assert [(keys.shape, values.shape) for keys, values in older.past_key_values] == [((2, 2, 8, 8),) * 2] * 3
    assert legacy[0][0].shape == (2, 2, 5, 8)  # the caller's is left alone
    with pytest.raises(ValueError, match="3 layers"):
        model(IDS[:, 5:], past_key_values=legacy[:2])


def test_a_static_cache_is_filled_in_place(model):
    cache = StaticCache(config=model.config, max_cache_len=12)
    model(IDS[:, :5], past_key_values=cache)
    assert_close(model(IDS[:, 5:], past_key_values=cache).logits, model(IDS).logits[:, 5:])


def test_use_cache(model):
    assert isinstance(model(IDS, use_cache=True).past_key_values, DynamicCache)
    assert model(IDS, use_cache=False).past_key_values is None


def test_cache_position_names_the_places_behind_the_cached_tokens(model):
    past = model(IDS[:, :5], cache_position=torch.arange(5)).past_key_values
    with pytest.raises(ValueError, match=r"cache_position=\[6, 7, 8\] must be \[5, 6, 7\]: 5 positions are cached"):
        model(IDS[:, 5:], past_key_values=past, cache_position=torch.arange(6, 9))
    output = model(IDS[:, 5:], past_key_values=past, cache_position=torch.arange(5, 8))
    assert_close(output.logits, model(IDS).logits[:, 5:])


@pytest.mark.parametrize("back_end", ["eager", "sdpa"])
def test_output_attentions_are_causal_distributions_under_every_back_end(back_end):
    model = ours(attn_implementation=back_end)
    mask = torch.ones_like(IDS)
    mask[1, :3] = 0
    output = model(IDS, attention_mask=mask, output_attentions=True)
    assert_close(output.logits[0], model(IDS, attention_mask=mask).logits[0])
    for weights in output.attentions:
        assert_close(weights[0].sum(-1), torch.ones(4, 8))
        assert not weights.triu(1)[0].any() and not weights[1, :, 3:, :3].any()
    assert model.config._attn_implementation == back_end


def test_output_hidden_states_begin_with_the_embeddings_and_end_normalised(model):
    states = model(IDS, output_hidden_states=True).hidden_states
    assert torch.equal(states[0], model.model.embed_tokens(IDS))
    assert torch.equal(states[-1], model.model(IDS).last_hidden_state)
    first = model.model.layers[0](states[0], model.model.rotary_emb(states[0], torch.arange(8)[None]))[0]
    assert_close(first, states[1])


def test_output_router_logits_are_the_gates(model):
    scores = model(IDS, output_router_logits=True).router_logits
    layer = model.model.layers[0]
    states = model(IDS, output_hidden_states=True).hidden_states[0]
    h = (
        states
        + layer.self_attn(layer.input_layernorm(states), model.model.rotary_emb(states, torch.arange(8)[None]))[0]
    )
    assert_close(scores[0], layer.post_attention_layernorm(h).flatten(0, 1) @ layer.mlp.gate.weight.T)


def test_return_dict_false_gives_the_documented_order(model):
    named = model(IDS, labels=IDS, output_router_logits=True, output_hidden_states=True, use_cache=False)
    loss, aux_loss, logits, hidden_states, router_logits = model(
        IDS, labels=IDS, output_router_logits=True, output_hidden_states=True, use_cache=False, return_dict=False
    )
    assert torch.equal(loss, named.loss) and torch.equal(aux_loss, named.aux_loss)
    assert torch.equal(logits, named.logits) and torch.equal(hidden_states[1], named.hidden_states[1])
    assert torch.equal(router_logits[2], named.router_logits[2])
    assert isinstance(model.model(IDS, return_dict=False), tuple)
    model.config.return_dict = False
    assert torch.equal(model(IDS)[0], named.logits)
    model.config.return_dict = True


def test_labels_give_the_mean_over_tokens_that_count(model):
    labels = IDS.clone()
    labels[0, :6] = -100
    output = model(IDS, labels=labels)
    losses = F.cross_entropy(output.logits[:, :-1].flatten(0, 1), IDS[:, 1:].flatten(), reduction="none").view(2, 7)
    counted = torch.cat([losses[0, 5:], losses[1]])  # tokens 6 and 7 of the first row, 1 to 7 of the second
    assert_close(output.loss, counted.mean())
    assert_close(model(IDS, labels=labels, num_items_in_batch=18).loss, counted.sum() / 18)


def test_logits_to_keep_and_its_older_name(model):
    whole = model(IDS, labels=IDS)
    for name in ("logits_to_keep", "num_logits_to_keep"):
        output = model(IDS, labels=IDS, **{name: 3})
        assert_close(output.logits, whole.logits[:, -3:])
        assert_close(output.loss, F.cross_entropy(whole.logits[:, 5:7].flatten(0, 1), IDS[:, 6:].flatten()))
        assert_close(model(IDS, **{name: 0}).logits, whole.logits)
    scattered = model(IDS, labels=IDS, logits_to_keep=torch.tensor([1, 4]))
    assert_close(scattered.logits, whole.logits[:, [1, 4]])
    assert_close(scattered.loss, F.cross_entropy(whole.logits[:, [1, 4]].flatten(0, 1), IDS[:, [2, 5]].flatten()))


def test_padding_does_not_count_in_the_auxiliary_loss(model):
    """A row of padding beside a row of text: the aux loss is the text's alone, in prefill and behind a cache."""
    mask = torch.ones_like(IDS)
    mask[1] = 0
    alone = model(IDS[:1], output_router_logits=True).aux_loss
    assert_close(model(IDS, attention_mask=mask, output_router_logits=True).aux_loss, alone)
    past = model(IDS[:, :5], attention_mask=mask[:, :5]).past_key_values
    later = model(IDS[:, 5:], attention_mask=mask, past_key_values=past, output_router_logits=True).aux_loss
    past = model(IDS[:1, :5]).past_key_values
    assert_close(later, model(IDS[:1, 5:], past_key_values=past, output_router_logits=True).aux_loss)


@pytest.mark.parametrize("keyword", ["cu_seqlens_q", "is_causal", "ouput_attentions", "token_type_ids"])
def test_an_unknown_keyword_is_refused_with_those_that_are_known(model, keyword):
    """A misspelt one would be ignored by the kernels, and packed documents would leak into each other."""
    for network, more in ((model, "num_items_in_batch, shift_labels, cu_seq_lens_q"), (model.model, "cu_seq_lens_q")):
        with pytest.raises(TypeError, match=f"unknown keywords {keyword}; allowed: input_ids,.*{more}.*seq_idx"):
            network(IDS, **{keyword: None})
    with pytest.raises(TypeError, match="OlmoeModel.forward: found unknown keywords num_items_in_batch"):
        model.model(IDS, num_items_in_batch=3)


def test_labels_that_are_shifted_already(model):
    shifted = torch.cat([IDS[:, 1:], torch.full((2, 1), -100)], dim=1)
    assert_close(model(IDS, labels=IDS, shift_labels=shifted).loss, model(IDS, labels=IDS).loss)
