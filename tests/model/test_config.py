import json

import pytest
import torch
import transformers
from support.networks import SMALL

from olmoe_ft.model import OlmoeConfig, OlmoeForCausalLM, OlmoeModel
from olmoe_ft.model.size import all_parameters, matrix_parameters_per_token

IMPOSSIBLE = [
    ({"num_attention_heads": 3}, "hidden_size=2048 .* num_attention_heads=3"),
    ({"num_attention_heads": 2048}, "num_attention_heads=2048 is a head of 1"),
    ({"num_key_value_heads": 5}, "num_key_value_heads=5"),
    ({"num_experts_per_tok": 65}, "num_experts_per_tok=65 .* num_experts=64"),
    ({"num_experts_per_tok": 0}, "num_experts_per_tok=0"),
    ({"num_experts": 0}, "num_experts=0"),
    ({"vocab_size": -1}, "vocab_size=-1"),
    ({"hidden_size": -16}, "hidden_size=-16"),
    ({"hidden_size": "2048"}, "hidden_size='2048'"),
    ({"intermediate_size": 0}, "intermediate_size=0"),
    ({"num_hidden_layers": -2}, "num_hidden_layers=-2"),
    ({"num_hidden_layers": 2.5}, "num_hidden_layers=2.5"),
    ({"max_position_embeddings": 0}, "max_position_embeddings=0"),
    ({"hidden_act": "swish2"}, "hidden_act='swish2' is unknown; allowed: .*silu"),
    ({"rms_norm_eps": 0.0}, "rms_norm_eps=0.0"),
    ({"initializer_range": -0.1}, "initializer_range=-0.1"),
    ({"attention_dropout": 1.0}, "attention_dropout=1.0"),
    ({"clip_qkv": -8.0}, "clip_qkv=-8.0"),
    ({"router_aux_loss_coef": -0.01}, "router_aux_loss_coef=-0.01"),
    ({"norm_topk_prob": "yes"}, "norm_topk_prob='yes'"),
    ({"pad_token_id": 50304}, "pad_token_id=50304 .* vocab_size"),
    ({"rope_theta": -1.0}, "rope_theta=-1.0"),
    ({"rope_scaling": {"type": "linear", "factor": 1.0}}, "factor=1.0"),
    ({"rope_scaling": {"type": "dynamic", "factor": 0.5}}, "factor=0.5"),
    ({"rope_scaling": {"type": "linear"}}, "factor=None"),
    ({"rope_scaling": {"type": "linear", "factor": "2"}}, "factor='2'"),
    ({"rope_scaling": {"type": "linear", "factor": float("inf")}}, "factor=inf"),
    ({"rope_scaling": {"type": "llama3", "factor": 8.0}}, "rope_scaling=.*llama3.*low_freq_factor"),
    ({"rope_scaling": {"type": "linear", "rope_type": "dynamic", "factor": 2.0}}, "'linear' contradicts .*'dynamic'"),
    ({"rope_scaling": {"factor": 2.0}}, "rope_scaling=.* must be of the form"),
    ({"rope_scaling": "linear"}, "rope_scaling='linear' must be of the form"),
    ({"rope_theta": float("nan")}, "rope_theta=nan"),
    ({"hidden_act": None}, "hidden_act=None"),
    ({"hidden_act": torch.nn.ReLU}, "hidden_act=<class .*ReLU.* is unknown"),
    ({"pad_token_id": "1"}, "pad_token_id='1'"),
    ({"bos_token_id": -5}, "bos_token_id=-5"),
    ({"eos_token_id": [2, 2.5]}, r"eos_token_id=\[2, 2.5\]"),
    ({"head_dim": 64}, "head_dim=64 must be hidden_size / num_attention_heads = 128"),
    ({"rope_scaling": {"type": "cubic", "factor": 2.0}}, "type='cubic' is unknown; allowed: default, linear, dynamic"),
]


@pytest.mark.parametrize(("values", "named"), IMPOSSIBLE)
def test_an_impossible_value_is_named(values, named):
    with pytest.raises(ValueError, match=named):
        OlmoeConfig(**values)


def test_impossible_values_are_found_whenever_they_come_in(tmp_path):
    config = OlmoeConfig()
    config.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="num_experts_per_tok=100"):
        OlmoeConfig.from_pretrained(tmp_path, num_experts_per_tok=100)
    config.num_experts_per_tok = 100
    with pytest.raises(ValueError, match="num_experts_per_tok=100"):
        OlmoeModel(config)
    with pytest.raises(ValueError, match="num_experts_per_tok=100"):
        config.save_pretrained(tmp_path)


def test_the_documented_defaults():
    documented = {
        "vocab_size": 50304,
        "hidden_size": 2048,
        "intermediate_size": 2048,
        "num_hidden_layers": 16,
        "num_attention_heads": 16,
        "num_key_value_heads": 16,  # None means as many as query heads
        "hidden_act": "silu",
        "max_position_embeddings": 4096,
        "initializer_range": 0.02,
        "rms_norm_eps": 1e-5,
        "use_cache": True,
        "pad_token_id": 1,
        "bos_token_id": None,
        "eos_token_id": 50279,
        "tie_word_embeddings": False,
        "rope_theta": 10000.0,
        "rope_scaling": None,
        "attention_bias": False,
        "attention_dropout": 0.0,
        "clip_qkv": None,
        "num_experts_per_tok": 8,
        "num_experts": 64,
        "output_router_logits": False,
        "router_aux_loss_coef": 0.01,
        "norm_topk_prob": False,
    }
    config = OlmoeConfig()
    assert {name: getattr(config, name) for name in documented} == documented


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"rope_theta": 5e5, "rope_scaling": {"type": "linear", "factor": 2.0}},
        {"rope_parameters": {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 4.0}},
        {"clip_qkv": 8, "rms_norm_eps": 1, "attention_dropout": 0},  # integers, which transformers refuses
        {"num_key_value_heads": 4, "attention_bias": True, "eos_token_id": [2, 3], "bos_token_id": 0},
    ],
)
def test_a_config_goes_to_transformers_and_back_with_nothing_lost(values, tmp_path):
    config = OlmoeConfig(**values)
    config.save_pretrained(tmp_path / "ours")
    stock = transformers.AutoConfig.from_pretrained(tmp_path / "ours")
    assert type(stock) is transformers.OlmoeConfig
    stock.save_pretrained(tmp_path / "stock")
    assert OlmoeConfig.from_pretrained(tmp_path / "stock").to_dict() == config.to_dict()
    assert json.loads((tmp_path / "stock/config.json").read_text()) == json.loads(
        (tmp_path / "ours/config.json").read_text()
    )


def test_the_two_spellings_of_position_scaling_are_one(tmp_path):
    scaling = {"type": "linear", "factor": 2.0}
    older = OlmoeConfig(rope_theta=5e5, rope_scaling=scaling)
    assert scaling == {"type": "linear", "factor": 2.0}  # the caller's dict is left alone
    newer = OlmoeConfig(rope_parameters={"rope_type": "linear", "rope_theta": 5e5, "factor": 2.0})
    for config in (older, newer):
        assert (config.rope_theta, config.rope_scaling) == (5e5, scaling)
        assert config.rope_parameters["rope_type"] == "linear"
    plain = OlmoeConfig(rope_theta=5e5)
    plain.save_pretrained(tmp_path)
    assert OlmoeConfig.from_pretrained(tmp_path, rope_scaling=scaling).rope_theta == 5e5
    assert OlmoeConfig.from_pretrained(tmp_path, rope_theta=7.0).rope_theta == 7.0
    plain.rope_scaling, plain.rope_theta = scaling, 1e4
    assert (plain.rope_theta, plain.rope_scaling) == (1e4, scaling)


def test_the_published_config_of_older_transformers_loads():
    """The keys of allenai/OLMoE-1B-7B-0924's config.json, which predates `rope_parameters`."""
    published = {"model_type": "olmoe", "intermediate_size": 1024, "rope_scaling": None, "rope_theta": 10000.0}
    config = OlmoeConfig.from_dict(published | {"torch_dtype": "bfloat16", "transformers_version": "4.45.0.dev0"})
    assert (config.intermediate_size, config.rope_theta, config.rope_scaling) == (1024, 10000.0, None)
    assert config.dtype == torch.bfloat16


def test_a_function_as_activation_works_but_is_not_saved(tmp_path):
    config = OlmoeConfig(hidden_act=torch.nn.functional.relu)
    assert "relu" in repr(config)
    with pytest.raises(ValueError, match="hidden_act=.*relu.* use a name"):
        config.save_pretrained(tmp_path)
    assert not list(tmp_path.iterdir())


def test_active_parameters_of_the_released_model():
    """OLMoE-1B-7B: 16 layers of attention 4·2048², router 2048·64, 8 experts of 3·2048·1024; head 2048·50304.

    16 · (16,777,216 + 131,072 + 50,331,648) + 103,022,592 = 1,178,861,568: with the embedding the paper's 1.3 B.
    """
    assert matrix_parameters_per_token(OlmoeConfig(intermediate_size=1024)) == 1_178_861_568


@pytest.mark.parametrize(
    "options",
    [{}, {"attention_bias": True}, {"num_key_value_heads": 2, "attention_bias": True}, {"tie_word_embeddings": True}],
    ids=str,
)
def test_all_parameters_are_those_of_the_network(options):
    config = OlmoeConfig(**SMALL, **options)
    assert all_parameters(config) == sum(weight.numel() for weight in OlmoeForCausalLM(config).parameters())
