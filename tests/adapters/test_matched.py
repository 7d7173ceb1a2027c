"""What an adapter has matched, kind by kind."""

import peft
import pytest
from support.networks import ours

from olmoe_ft.adapters.lora import lora_config
from olmoe_ft.adapters.matched import adapted_kinds
from olmoe_ft.recipe import RecipeError
from olmoe_ft.recipe.schema import Lora


def adapted(router: str, **options) -> dict:
    lora = Lora(**{"r": 4, "alpha": 8.0, "attention": True, "experts": True, **options})
    return {
        kind.name: (kind.form, kind.matched, kind.parameters)
        for kind in adapted_kinds(peft.get_peft_model(ours(num_key_value_heads=2), lora_config(lora, router)))
    }


def test_every_kind_with_its_count_and_size():
    """3 layers of H = 32, I = 24, E = 8, keys of 2 x 8 = 16 features, r = 4: per layer q and o 4 (32 + 32), k and v
    4 (32 + 16), gate_up 4 (32 + 48) 8, down 4 (24 + 32) 8, the router 4 (32 + 8), or whole 32 x 8."""
    expected = {
        "q_proj": ("factors", 3, 3 * 256),
        "k_proj": ("factors", 3, 3 * 192),
        "v_proj": ("factors", 3, 3 * 192),
        "o_proj": ("factors", 3, 3 * 256),
        "mlp.experts.gate_up_proj": ("factors", 3, 3 * 2560),
        "mlp.experts.down_proj": ("factors", 3, 3 * 1792),
    }
    assert adapted("frozen") == expected
    assert adapted("lora") == expected | {"mlp.gate.weight": ("factors", 3, 3 * 160)}
    assert adapted("full") == expected | {"mlp.gate": ("whole", 3, 3 * 256)}
    assert adapted("full", experts=False).keys() == {"q_proj", "k_proj", "v_proj", "o_proj", "mlp.gate"}
    assert adapted("lora", attention=False, experts=False).keys() == {"mlp.gate.weight"}


def test_a_kind_that_matches_nothing_or_not_every_layer_is_refused():
    config = peft.LoraConfig(
        target_modules=["q_proj", "qkv_proj", "layers.0.self_attn.k_proj"],
        target_parameters=["mlp.experts.gate_up_proj", "mlp.experts.gate_proj"],
    )
    with pytest.raises(RecipeError) as error:
        adapted_kinds(peft.get_peft_model(ours(), config))
    text = str(error.value)
    assert "lora: qkv_proj matched 0 of 3 layers" in text
    assert "lora: mlp.experts.gate_proj matched 0 of 3 layers" in text
    assert "lora: layers.0.self_attn.k_proj matched 1 of 3 layers" in text
    assert "q_proj matched 3" not in text and "gate_up_proj matched" not in text
