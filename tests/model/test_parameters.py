"""What each documented parameter of the config does to the network."""

import pytest
import torch
from support.networks import SMALL, assert_close, ours

from olmoe_ft.model import OlmoeConfig, OlmoeForCausalLM
from olmoe_ft.model.router import OlmoeTopKRouter

IDS = torch.tensor([[5, 17, 33, 4, 60, 9, 21, 8]])


def untouched(**options) -> OlmoeForCausalLM:
    """The network as it is initialised."""
    return OlmoeForCausalLM(OlmoeConfig(**{**SMALL, **options})).eval()


def twins(first: dict, second: dict) -> tuple[OlmoeForCausalLM, OlmoeForCausalLM]:
    """Two configurations, the same weights."""
    left, right = ours(**first), ours(**second)
    right.load_state_dict(left.state_dict())
    return left, right


def logits(model: OlmoeForCausalLM, ids: torch.Tensor = IDS, **arguments) -> torch.Tensor:
    with torch.no_grad():
        return model(ids, **arguments).logits


def test_vocab_size_is_the_number_of_logits_and_embeddings():
    model = ours(vocab_size=70)
    assert model.model.embed_tokens.weight.shape == (70, 32)
    assert logits(model).shape == (1, 8, 70)


def test_hidden_size_is_the_width_of_the_hidden_states():
    assert ours(hidden_size=48).model(IDS).last_hidden_state.shape == (1, 8, 48)


def test_intermediate_size_is_the_width_of_an_expert():
    experts = ours(intermediate_size=40).model.layers[0].mlp.experts
    assert experts.down_proj.shape == (8, 32, 40)
    assert experts.gate_up_proj.shape == (8, 80, 32)


def test_num_hidden_layers_is_the_number_of_layers():
    output = ours(num_hidden_layers=2)(IDS, output_router_logits=True, output_hidden_states=True)
    assert (len(output.router_logits), len(output.hidden_states)) == (2, 3)


def test_num_attention_heads_is_the_number_of_attention_maps():
    assert ours(num_attention_heads=8)(IDS, output_attentions=True).attentions[0].shape == (1, 8, 8, 8)


@pytest.mark.parametrize(("given", "heads"), [(None, 4), (2, 2), (1, 1)])
def test_num_key_value_heads_is_the_number_of_cached_heads(given, heads):
    cache = ours(num_key_value_heads=given)(IDS, use_cache=True).past_key_values
    assert cache.layers[0].keys.shape == (1, heads, 8, 8)


def test_grouped_queries_share_a_key_head():
    """With the one key head's weights in both of two, grouped-query attention is multi-query attention."""
    single, double = ours(num_key_value_heads=1), ours(num_key_value_heads=2)
    weights = single.state_dict()
    for name, tensor in weights.items():
        if "k_proj" in name or "v_proj" in name or "k_norm" in name:
            weights[name] = torch.cat([tensor, tensor])
    double.load_state_dict(weights)
    assert_close(logits(double), logits(single))


def test_hidden_act_is_the_experts_activation():
    """One expert, weights of one: `relu(g)·g` summed over I, times the router's weight of 1."""
    experts = ours(hidden_act="relu", num_experts=1, num_experts_per_tok=1).model.layers[0].mlp.experts
    with torch.no_grad():
        experts.gate_up_proj.fill_(1.0)
        experts.down_proj.fill_(1.0)
    x = torch.stack([torch.full((32,), 0.5), torch.full((32,), -0.5)])  # gate and up are 16 and -16
    y = experts(x, torch.zeros(2, 1, dtype=torch.long), torch.ones(2, 1))
    assert_close(y, torch.tensor([16.0 * 16.0 * 24, 0.0])[:, None].expand(2, 32))


def test_hidden_act_may_be_a_function():
    named, given = twins({"hidden_act": "relu"}, {"hidden_act": torch.nn.functional.relu})
    assert torch.equal(logits(named), logits(given))


def test_max_position_embeddings_is_where_dynamic_scaling_begins():
    short, long = ({"rope_scaling": {"type": "dynamic", "factor": 4.0}, "max_position_embeddings": n} for n in (4, 8))
    plain, stretched = twins(long, short)
    assert_close(logits(stretched, IDS[:, :4]), logits(plain, IDS[:, :4]))
    assert (logits(stretched) - logits(plain)).abs().max() > 1e-3


def test_initializer_range_is_the_standard_deviation_of_the_weights():
    for name, weight in untouched(initializer_range=0.3, hidden_size=64).named_parameters():
        if "norm" not in name:
            assert 0.27 < weight.std() < 0.33, name


def test_rms_norm_eps_is_added_to_the_mean_square():
    norm = untouched(rms_norm_eps=3.0).model.norm
    assert_close(norm(torch.ones(1, 32)), torch.full((1, 32), 0.5))  # 1 / sqrt(1 + 3)


def test_use_cache_decides_whether_keys_and_values_come_back():
    assert ours(use_cache=True)(IDS).past_key_values.get_seq_length() == 8
    assert ours(use_cache=False)(IDS).past_key_values is None


def test_pad_token_id_has_a_zero_embedding_without_gradient():
    model = untouched(pad_token_id=3)
    assert not model.model.embed_tokens.weight[3].any()
    model(torch.tensor([[3, 4, 5]]), labels=torch.tensor([[3, 4, 5]])).loss.backward()
    gradient = model.model.embed_tokens.weight.grad
    assert not gradient[3].any() and gradient[4].any()


def test_eos_token_id_ends_generation():
    model = ours(eos_token_id=None)
    free = model.generate(IDS, max_new_tokens=6, do_sample=False)[0, 8:].tolist()
    ending = ours(eos_token_id=free[2])
    ending.load_state_dict(model.state_dict())
    stopped = ending.generate(IDS, max_new_tokens=6, do_sample=False)[0, 8:].tolist()
    assert stopped == free[: free.index(free[2]) + 1]


def test_bos_token_id_starts_generation_without_a_prompt():
    assert ours(bos_token_id=7).generate(max_new_tokens=2)[0, 0] == 7


def test_tie_word_embeddings_makes_the_head_the_embedding():
    tied, free = untouched(tie_word_embeddings=True), untouched()
    assert tied.lm_head.weight is tied.model.embed_tokens.weight
    assert free.lm_head.weight is not free.model.embed_tokens.weight


def test_rope_theta_is_the_base_of_the_angles():
    """Head size 8, theta 16: 16^(-2i/8) = 1, 1/2, 1/4, 1/8."""
    assert_close(untouched(rope_theta=16.0).model.rotary_emb.inv_freq, torch.tensor([1, 0.5, 0.25, 0.125]))


def test_linear_scaling_divides_positions_by_the_factor():
    plain, scaled = twins({}, {"rope_scaling": {"type": "linear", "factor": 2.0}})
    places = torch.arange(8).unsqueeze(0)
    assert_close(logits(scaled, position_ids=2 * places), logits(plain, position_ids=places))
    assert (logits(scaled) - logits(plain)).abs().max() > 1e-3


def test_dynamic_scaling_raises_the_base_with_the_length():
    """NTK-aware scaling: theta · (f·L/M - (f-1))^(D/(D-2)). D 8, f 2, M 48, L 72: 10000 · 2^(8/6)."""
    rope = untouched(rope_scaling={"type": "dynamic", "factor": 2.0}).model.rotary_emb
    cos, _ = rope(torch.zeros(1), torch.arange(72).unsqueeze(0))
    frequencies = (10000.0 * 2 ** (8 / 6)) ** -torch.tensor([0, 0.25, 0.5, 0.75])
    assert_close(cos[0, 71, :4], (71 * frequencies).cos())
    before = rope(torch.zeros(1), torch.arange(48).unsqueeze(0))[0]
    assert_close(before[0, 47, :4], (47 * 10000.0 ** -torch.tensor([0, 0.25, 0.5, 0.75])).cos())


def test_attention_bias_gives_all_four_projections_a_bias():
    attention = ours(attention_bias=True).model.layers[0].self_attn
    assert all(getattr(attention, f"{name}_proj").bias is not None for name in "qkvo")
    assert ours().model.layers[0].self_attn.q_proj.bias is None


@pytest.mark.parametrize("back_end", ["eager", "sdpa"])
def test_attention_dropout_acts_in_training_alone(back_end):
    model = ours(attention_dropout=0.5, attn_implementation=back_end)
    assert torch.equal(logits(model), logits(model))
    model.train()
    assert not torch.equal(logits(model), logits(model))


def test_clip_qkv_bounds_queries_keys_and_values():
    model = ours(clip_qkv=0.05)
    values = model(IDS, use_cache=True).past_key_values.layers[0].values
    assert values.abs().max().item() == pytest.approx(0.05)
    assert ours()(IDS, use_cache=True).past_key_values.layers[0].values.abs().max() > 0.05


def test_num_experts_and_num_experts_per_tok_are_the_routers_choice():
    router = OlmoeTopKRouter(OlmoeConfig(hidden_size=32, num_experts=5, num_experts_per_tok=3, num_attention_heads=4))
    scores, weights, experts = router(torch.randn(7, 32))
    assert (scores.shape, weights.shape, experts.shape) == ((7, 5), (7, 3), (7, 3))


@pytest.mark.parametrize(("normalise", "expected"), [(False, [0.5, 0.25]), (True, [2 / 3, 1 / 3])])
def test_norm_topk_prob_makes_the_chosen_weights_sum_to_one(normalise, expected):
    """Logits ln 4, ln 2, 0, 0: probabilities 1/2, 1/4, 1/8, 1/8."""
    config = OlmoeConfig(
        hidden_size=2, num_attention_heads=1, num_experts=4, num_experts_per_tok=2, norm_topk_prob=normalise
    )
    router = OlmoeTopKRouter(config)
    with torch.no_grad():
        router.weight.copy_(torch.tensor([[0.0, 0], [4, 0], [0, 0], [2, 0]]).clamp(min=1).log())
    _, weights, experts = router(torch.tensor([[1.0, 0.0]]))
    assert experts.tolist() == [[1, 3]]
    assert_close(weights, torch.tensor([expected]))


def test_output_router_logits_adds_the_auxiliary_loss_with_its_coefficient():
    quiet, loud = twins({}, {"output_router_logits": True, "router_aux_loss_coef": 0.5})
    without, with_aux = quiet(IDS, labels=IDS), loud(IDS, labels=IDS)
    assert without.aux_loss is None and without.router_logits is None
    assert_close(with_aux.loss, without.loss + 0.5 * with_aux.aux_loss)
