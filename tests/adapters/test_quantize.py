"""A base in 4 bit: the same numbers as the weights that the packed ones stand for, and a refusal where it cannot be."""

import weakref

import peft
import pytest
import torch
from bitsandbytes import functional
from support.networks import assert_close, ours

from olmoe_ft.adapters import quantize
from olmoe_ft.adapters.lora import lora_config
from olmoe_ft.adapters.quantize import PackedStack, check_quantization, quantize_base
from olmoe_ft.model.experts.few_rows import generating
from olmoe_ft.recipe import RecipeError
from olmoe_ft.recipe.schema import Lora

IDS = torch.arange(3, 40).view(1, -1)
SIZES = {"hidden_size": 64, "intermediate_size": 64, "attention_bias": True}


def adapted(router: str = "full", **options) -> peft.PeftModel:
    torch.manual_seed(0)
    lora = Lora(**{"r": 4, "alpha": 8.0, "attention": True, "experts": True, "init_lora_weights": False, **options})
    return peft.get_peft_model(ours(**SIZES), lora_config(lora, router))


def gradients(model: peft.PeftModel) -> dict[str, torch.Tensor]:
    output = model(IDS, labels=IDS)
    output.loss.backward()
    trained = {name: weight.grad for name, weight in model.named_parameters() if weight.requires_grad}
    return {"logits": output.logits, **trained}


def rounded(weight: torch.Tensor) -> torch.Tensor:
    return functional.dequantize_4bit(*functional.quantize_4bit(weight, quant_type="nf4", compress_statistics=True))


@pytest.mark.parametrize("options", [{}, {"attention": False}, {"experts": False}])
@pytest.mark.parametrize("checkpointing", [False, True])
def test_logits_and_gradients_are_those_of_the_weights_that_the_packed_ones_stand_for(options, checkpointing):
    """3 layers of 4 attention weights 64 x 64 and 8 experts of 3 x 64 x 64 are packed, everything else is not."""
    packed, plain = adapted(**options), adapted(**options)
    exact = plain(IDS).logits
    quantize_base(packed)
    with torch.no_grad():
        for name, weight in plain.named_parameters():
            if "lora_" not in name and (name.endswith("gate_up_proj") or name.endswith("down_proj")):
                weight.copy_(rounded(weight))
            elif "lora_" not in name and "_proj" in name and name.endswith("weight"):
                weight.copy_(rounded(weight))
    if checkpointing:
        for model in (packed, plain):
            model.gradient_checkpointing_enable({"use_reentrant": False})
            model.enable_input_require_grads()
            model.train()
    actual, expected = gradients(packed), gradients(plain)
    assert actual.keys() == expected.keys()
    for name in expected:
        assert_close(actual[name], expected[name])
    assert (actual["logits"] - exact).abs().max() > 1e-2  # 4 bit is not 32
    packed_bytes = [value.nbytes for value in (*packed.buffers(), *packed.parameters()) if value.dtype == torch.uint8]
    assert sum(packed_bytes) == 3 * (8 * 3 + 4) * 64 * 64 // 2


def test_evaluation_without_gradients_and_generation_too():
    """Packed experts without adapters on them, as DPO's reference has them: the same logits with gradients and without,
    and where text is generated. (bitsandbytes' own layers of attention add biases in place on a CPU: none here.)"""
    lora = Lora(r=4, alpha=8.0, attention=True, experts=False, init_lora_weights=False)
    model = peft.get_peft_model(ours(hidden_size=64, intermediate_size=64), lora_config(lora, "full"))
    quantize_base(model)
    experts = model.get_base_model().model.layers[0].mlp.experts.eval()
    x, chosen, weights = torch.randn(3, 64), torch.tensor([[0, 1], [2, 3], [4, 5]]), torch.rand(3, 2)
    expected = experts(x, chosen, weights).detach()
    with torch.no_grad():
        assert torch.equal(experts(x, chosen, weights), expected)
        with generating():
            assert torch.equal(experts(x, chosen, weights), expected)


def test_nothing_unpacked_is_kept_for_the_backward_pass():
    model = adapted()
    quantize_base(model)
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: kept.append(tensor.numel()) or tensor, lambda t: t):
        model(IDS, labels=IDS)
    assert max(kept) < 8 * 64 * 64  # the smaller stack


def test_one_stack_at_a_time_is_unpacked(monkeypatch):
    """Each once forward and once backward, the one before it gone by then; what tells of its sizes takes no memory."""
    model, alive, calls = adapted(), weakref.WeakSet(), []
    quantize_base(model)
    dequantize = PackedStack.dequantize

    def watched(stack: PackedStack) -> torch.Tensor:
        calls.append(len(alive))
        unpacked = dequantize(stack)
        assert (stack.outline().shape, stack.outline().dtype) == (unpacked.shape, unpacked.dtype)
        assert stack.outline().untyped_storage().nbytes() == 4
        alive.add(unpacked.untyped_storage())
        return unpacked

    monkeypatch.setattr(PackedStack, "dequantize", watched)
    model(IDS, labels=IDS).loss.backward()
    assert calls == [0] * 3 * 2 * 2


def test_the_scales_move_with_the_stack():
    stack = PackedStack(torch.randn(2, 64, 64)).to("meta")
    assert {stack.packed.device.type, stack.state.absmax.device.type, stack.state.code.device.type} == {"meta"}


def test_adapters_off_and_on_and_saved(tmp_path):
    model = adapted()
    quantize_base(model)
    on = model(IDS).logits
    with model.disable_adapter():
        assert (model(IDS).logits - on).abs().max() > 1e-3
    assert torch.equal(model(IDS).logits, on)
    model.save_pretrained(tmp_path)
    again = peft.PeftModel.from_pretrained(ours(**SIZES), tmp_path)  # a stock adapter, on weights that are not packed
    assert {name for name, _ in again.named_parameters() if "lora_" in name} == {
        name for name, _ in model.named_parameters() if "lora_" in name
    }


def test_a_missing_library_and_zero3_are_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    check_quantization()
    monkeypatch.setattr(quantize, "is_deepspeed_zero3_enabled", lambda: True)
    with pytest.raises(RecipeError, match="ZeRO-3 cuts them up: launch with configs/accelerate/gpu.yaml"):
        check_quantization()
    monkeypatch.setattr(quantize, "find_spec", lambda name: None)
    with pytest.raises(RecipeError, match=r"needs bitsandbytes: pip install 'olmoe_ft\[quantization\]'"):
        check_quantization()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU, so nothing is refused")
def test_a_cpu_is_refused():
    with pytest.raises(RecipeError, match="model.quantization: nf4 needs an NVIDIA GPU, and there is none"):
        check_quantization()
