"""Adapters on attention and experts beside PEFT's own forward on transformers' network: same weights, same numbers."""

import copy
import random
import tomllib
from importlib.metadata import version
from pathlib import Path

import peft
import pytest
import torch
from peft.tuners.lora import ParamWrapper
from support.networks import assert_close, ours, pair
from torch.utils._python_dispatch import TorchDispatchMode

from olmoe_ft.adapters.lora import lora_config
from olmoe_ft.checkpoints.weights import attach_adapter
from olmoe_ft.model.experts import peft_bridge
from olmoe_ft.recipe.schema import Lora

ATTENTION = ["q_proj", "k_proj", "v_proj", "o_proj"]
EXPERTS = ["mlp.experts.gate_up_proj", "mlp.experts.down_proj"]


def adapter(parameters=(*EXPERTS, "mlp.gate.weight"), attention=True, **options) -> peft.LoraConfig:
    return peft.LoraConfig(
        task_type="CAUSAL_LM",
        target_modules=ATTENTION if attention else [],
        target_parameters=list(parameters),
        **{"r": 4, "lora_alpha": 8, "init_lora_weights": False, **options},
    )


def drawn(seed: int) -> tuple[dict, list[peft.LoraConfig], int]:
    """A network, two adapters on the same weights, and a number of tokens; often fewer than would reach all experts."""
    draw = random.Random(seed)
    heads = draw.choice([1, 2, 4])
    experts = draw.choice([1, 2, 5, 8, 16])
    sizes = {
        "hidden_size": heads * draw.choice([6, 8, 16]),
        "intermediate_size": draw.choice([5, 8, 24, 32]),
        "num_hidden_layers": draw.choice([1, 2]),
        "num_attention_heads": heads,
        "hidden_act": draw.choice(["silu", "silu", "gelu"]),
        "num_experts": experts,
        "num_experts_per_tok": draw.choice(sorted({1, min(2, experts), experts})),
        "norm_topk_prob": draw.random() < 0.5,
    }
    parameters = draw.choice([EXPERTS, EXPERTS[:1], EXPERTS[1:], [*EXPERTS, "mlp.gate.weight"]])
    attention = draw.random() < 0.7
    configs = [
        adapter(
            parameters,
            attention,
            r=draw.choice([1, 2, 3, 8, 16, 40]),
            lora_alpha=draw.choice([1, 8, 12.5]),
            use_rslora=draw.random() < 0.3,
        )
        for _ in range(2)
    ]
    return sizes, configs, draw.choice([2, 3, 17, 40])


def adapted(sizes: dict, configs: list[peft.LoraConfig]) -> list[peft.PeftModel]:
    """transformers' network and ours under PEFT with the same weights, adapters "default" and "second"."""
    models = [peft.get_peft_model(network, copy.deepcopy(configs[0])) for network in pair(**sizes)]
    for model in models:
        for name, config in zip(("second", "third"), configs[1:], strict=False):
            model.add_adapter(name, copy.deepcopy(config))
    for name, tensor in models[0].named_parameters():
        if "lora_" in name:
            torch.nn.init.normal_(tensor, std=0.2)
    models[1].load_state_dict(models[0].state_dict())
    return models


def gradients(model: peft.PeftModel, ids: torch.Tensor) -> dict[str, torch.Tensor]:
    output = model(ids, labels=ids, output_router_logits=True)
    output.loss.backward()
    found = {name: weight.grad for name, weight in model.named_parameters() if weight.grad is not None}
    assert all("lora_" in name for name in found)  # nothing for frozen weights
    return {"loss": output.loss, "logits": output.logits, **found}


@pytest.mark.parametrize("active", ["none", "one", "second", "two"])
@pytest.mark.parametrize("seed", range(12))
def test_loss_logits_and_every_factors_gradient_equal_pefts(seed, active):
    torch.manual_seed(seed)
    sizes, configs, tokens = drawn(seed)
    stock, network = adapted(sizes, configs)
    ids = torch.randint(3, 97, (2, tokens))
    names = {"one": ["default"], "second": ["second"], "two": ["default", "second"], "none": ["default"]}[active]
    results = []
    for model in (stock, network):
        model.base_model.set_adapter(names)
        if active == "none":
            with model.disable_adapter(), torch.no_grad():
                results.append({"logits": model(ids).logits})
            results[-1]["without"] = model.get_base_model()(ids).logits  # and on again: not the same
        else:
            results.append(gradients(model, ids))
    expected, actual = results
    assert actual.keys() == expected.keys()
    for name in expected:
        assert_close(actual[name], expected[name])
    if active == "none":
        assert (actual["without"] - actual["logits"]).abs().max() > 1e-3
    else:
        factors = [name for name in actual if "mlp.experts" in name]
        parameters = [name for name in configs[0].target_parameters if "experts" in name]
        assert len(factors) == 2 * len(names) * len(parameters) * sizes["num_hidden_layers"]
        assert all(actual[name].abs().max() > 1e-7 for name in factors)


class Allocations(TorchDispatchMode):
    """The largest tensor, in elements, that any operation in the block made anew."""

    largest = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        output = function(*args, **(kwargs or {}))
        known = {arg.untyped_storage().data_ptr() for arg in args if isinstance(arg, torch.Tensor)}
        for made in output if isinstance(output, tuple | list) else [output]:
            if isinstance(made, torch.Tensor) and made.untyped_storage().data_ptr() not in known:  # no view
                self.largest = max(self.largest, made.numel())
        return output


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("names", [["default"], ["default", "second"]])
def test_nothing_of_the_size_of_the_experts_is_made(names, checkpointing):
    """The smaller stack is 64 x 32 x 32 = 65,536 weights; six tokens, two experts each, need 12 x 64 at most."""
    sizes = {"hidden_size": 32, "intermediate_size": 32, "num_experts": 64}
    stock, network = adapted(sizes, [adapter(EXPERTS), adapter(EXPERTS)])
    largest = []
    for model in (stock, network):
        model.base_model.set_adapter(names)
        if checkpointing:
            model.gradient_checkpointing_enable({"use_reentrant": False})
            model.enable_input_require_grads()
        with Allocations() as seen:
            gradients(model, torch.randint(3, 97, (1, 6)))
        largest.append(seen.largest)
    assert largest[0] >= 64 * 32 * 32  # the measure sees what PEFT folds
    assert largest[1] <= 64 * 64 * 8  # the widest factor: 64 outputs, rank 4 padded to 8, 64 experts


def test_other_back_ends_of_the_experts_still_hear_the_adapter():
    network = adapted({}, [adapter()])[1]
    ids = torch.randint(3, 97, (2, 9))
    expected = network(ids).logits
    for name in ("eager", "grouped_mm", "batched_mm"):
        network.get_base_model().set_experts_implementation(name)
        assert_close(network(ids).logits, expected)


ANOTHER_PEFT = rf"PEFT {version('peft')} .* allowed: peft>=0.21,<0.22; install it with"


@pytest.mark.parametrize("method", ["_activate_lora", "get_delta_factors"])
def test_another_peft_is_refused_before_a_model_is_loaded_and_in_the_first_forward_pass(monkeypatch, tmp_path, method):
    """In a recipe, in a checkpoint, and where somebody attaches an adapter by PEFT alone."""
    network = peft.get_peft_model(ours(), adapter())
    network.save_pretrained(tmp_path)
    monkeypatch.delattr(ParamWrapper, method)
    with pytest.raises(RuntimeError, match=ANOTHER_PEFT) as refusal:
        network(torch.tensor([[5, 6, 7]]))
    assert method in str(refusal.value)
    with pytest.raises(RuntimeError, match=ANOTHER_PEFT):
        lora_config(Lora(r=4, alpha=8, attention=False, experts=True), "frozen")
    with pytest.raises(RuntimeError, match=ANOTHER_PEFT):
        attach_adapter(ours(), str(tmp_path))


def test_a_peft_that_folds_without_asking_the_bridge_is_refused(monkeypatch):
    """As if its `forward` called another method; the back ends that read weights alone go on."""
    network = peft.get_peft_model(ours(), adapter())
    monkeypatch.setattr("olmoe_ft.model.decoder.multiply_instead_of_fold", lambda experts: None)
    with pytest.raises(RuntimeError, match="folds an adapter into (gate_up|down)_proj.*" + ANOTHER_PEFT[-40:]):
        network(torch.tensor([[5, 6, 7]]))
    network.get_base_model().set_experts_implementation("eager")
    network(torch.tensor([[5, 6, 7]]))


def test_the_allowed_version_is_the_packages_own():
    project = tomllib.loads(Path(peft_bridge.__file__).parents[3].joinpath("pyproject.toml").read_text())
    assert peft_bridge.ALLOWED in project["project"]["dependencies"]


def test_merging_unmerging_and_unloading():
    network = adapted({}, [adapter(), adapter(r=2)])[1].eval()
    ids = torch.randint(3, 97, (2, 9))
    expected = network(ids).logits
    network.merge_adapter()
    assert_close(network(ids).logits, expected)
    network.unmerge_adapter()
    assert_close(network(ids).logits, expected)
    network.set_adapter("second")
    other = network(ids).logits
    assert (other - expected).abs().max() > 1e-2
    network.set_adapter("default")
    network.delete_adapter("second")
    copied = copy.deepcopy(network)
    assert_close(copied(ids).logits, expected)
    assert_close(network.merge_and_unload()(ids).logits, expected)


def test_mixed_batches_are_refused_as_by_peft():
    network = adapted({}, [adapter(EXPERTS, attention=False)])[1].eval()
    with pytest.raises(ValueError, match="mixed"):
        network(torch.randint(3, 97, (2, 9)), adapter_names=["default", "__base__"])


def test_generation_with_an_adapter_is_that_of_the_merged_model():
    network = peft.get_peft_model(ours(), adapter())
    for name, weight in network.named_parameters():
        if "lora_" in name:
            torch.nn.init.normal_(weight, std=0.2)
    network.eval()
    ids = torch.randint(3, 97, (2, 5))
    options = {"max_new_tokens": 12, "do_sample": False, "eos_token_id": None, "pad_token_id": 1}
    expected = network.generate(input_ids=ids, **options)
    assert torch.equal(network.merge_and_unload().generate(input_ids=ids, **options), expected)


def test_bf16_equals_pefts_within_its_rounding():
    """Weights in bf16, factors in fp32 as PEFT keeps them; a sum of two roundings instead of one of a sum.

    Each kind of CPU sums bf16 products in an order of its own: of a weight's largest gradient the two differ by less
    than 0.05 with AVX-512, and by 0.058 with AVX2.
    """
    torch.manual_seed(0)
    stock, network = adapted({"intermediate_size": 32}, [adapter(EXPERTS)])
    for model in (stock, network):
        model.get_base_model().bfloat16()
        for name, weight in model.named_parameters():
            if "lora_" in name:
                weight.data = weight.data.float()
    ids = torch.randint(3, 97, (2, 9))
    expected, actual = gradients(stock, ids), gradients(network, ids)
    for name in expected:
        assert actual[name].dtype == expected[name].dtype
        scale = expected[name].abs().max().item()
        assert_close(actual[name].float() / scale, expected[name].float() / scale, 8e-2)
