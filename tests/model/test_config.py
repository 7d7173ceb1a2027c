import json

import pytest
import transformers

from olmoe_ft.model import OlmoeConfig
from olmoe_ft.model.size import matrix_parameters_per_token


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"num_attention_heads": 3}, "num_attention_heads=3"),
        ({"num_key_value_heads": 5}, "num_key_value_heads=5"),
        ({"num_experts_per_tok": 65}, "num_experts_per_tok=65"),
        ({"num_experts_per_tok": 0}, "num_experts_per_tok=0"),
    ],
)
def test_sizes_that_contradict_each_other_are_named(values, named):
    with pytest.raises(ValueError, match=named):
        OlmoeConfig(**values)


def test_a_config_goes_to_transformers_and_back_with_nothing_lost(tmp_path):
    config = OlmoeConfig(hidden_size=64, clip_qkv=3.0, rope_theta=5e5, rope_scaling={"type": "linear", "factor": 2.0})
    config.save_pretrained(tmp_path)
    stock = transformers.AutoConfig.from_pretrained(tmp_path)
    assert type(stock) is transformers.OlmoeConfig
    stock.save_pretrained(tmp_path / "back")
    assert OlmoeConfig.from_pretrained(tmp_path / "back").to_dict() == config.to_dict()
    assert json.loads((tmp_path / "config.json").read_text())["rope_parameters"]["rope_theta"] == 5e5


def test_active_parameters_of_the_released_model():
    """OLMoE-1B-7B: 16 layers of attention 4·2048², router 2048·64, 8 experts of 3·2048·1024; head 2048·50304.

    16 · (16,777,216 + 131,072 + 50,331,648) + 103,022,592 = 1,178,861,568: with the embedding the paper's 1.3 B.
    """
    assert matrix_parameters_per_token(OlmoeConfig(intermediate_size=1024)) == 1_178_861_568
