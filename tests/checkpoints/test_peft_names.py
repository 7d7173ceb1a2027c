"""The names that PEFT gives, beside those of a network that it has wrapped."""

import peft
from safetensors import safe_open
from support.networks import ours

from olmoe_ft.adapters.lora import lora_config
from olmoe_ft.checkpoints.peft_names import is_b_factor, is_factor, is_whole_copy, plain_name, stored_name
from olmoe_ft.recipe.schema import Lora


def test_every_parameter_of_the_base_gets_its_own_name_back_and_every_factor_the_one_in_the_file(tmp_path):
    """Experts in two wrappers one around the other, attention in one, routers as a copy beside the original."""
    network = ours()
    own = sorted(name for name, _ in network.named_parameters())
    routers = [name for name in own if name.endswith("mlp.gate.weight")]
    model = peft.get_peft_model(network, lora_config(Lora(r=4, alpha=8, attention=True, experts=True), "full"))
    names = [name for name, _ in model.named_parameters()]
    base = [plain_name(name) for name in names if not is_factor(name) and not is_whole_copy(name)]
    assert sorted(base) == own
    assert sorted(plain_name(name) for name in names if is_whole_copy(name)) == routers and len(routers) == 3
    factors = [name for name in names if is_factor(name)]
    assert len(factors) == 3 * (4 + 2) * 2 and sum(map(is_b_factor, factors)) == len(factors) / 2
    model.save_pretrained(tmp_path)
    with safe_open(tmp_path / "adapter_model.safetensors", "pt") as file:
        assert {stored_name(name) for name in factors} == {name for name in file.keys() if is_factor(name)}
