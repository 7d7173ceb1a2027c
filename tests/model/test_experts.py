import torch
from safetensors.torch import load_file

from olmoe_ft.model import OlmoeConfig, OlmoeForCausalLM

TINY = OlmoeConfig(
    vocab_size=64,
    hidden_size=16,
    intermediate_size=8,
    num_hidden_layers=2,
    num_attention_heads=2,
    num_experts=4,
    num_experts_per_tok=2,
)


def test_load_state_dict_takes_a_published_checkpoint(tmp_path):
    """What Trainer does on resume: the file's tensors, one per expert, straight into the model, not strictly."""
    trained, fresh = OlmoeForCausalLM(TINY), OlmoeForCausalLM(TINY)
    trained.save_pretrained(tmp_path)
    published = load_file(tmp_path / "model.safetensors")
    assert "model.layers.1.mlp.experts.3.up_proj.weight" in published
    result = fresh.load_state_dict(published, strict=False)
    assert not result.missing_keys and not result.unexpected_keys
    for name, tensor in trained.state_dict().items():
        assert torch.equal(fresh.state_dict()[name], tensor), name


def test_a_published_checkpoint_with_an_expert_missing_is_an_error(tmp_path):
    model = OlmoeForCausalLM(TINY)
    model.save_pretrained(tmp_path)
    published = load_file(tmp_path / "model.safetensors")
    del published["model.layers.0.mlp.experts.2.down_proj.weight"]
    try:
        model.load_state_dict(published, strict=False)
    except KeyError as error:
        assert "model.layers.0.mlp.experts.2.down_proj.weight" in str(error)
    else:
        raise AssertionError("a missing expert was not noticed")
