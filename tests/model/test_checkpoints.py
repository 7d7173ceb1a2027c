"""Checkpoints: published, sharded and stacked ones load bit for bit; broken ones are refused by the tensor's name."""

import json
from pathlib import Path

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from support.networks import SMALL, ours, pair

from olmoe_ft.model import OlmoeConfig, OlmoeForCausalLM, OlmoeModel


def assert_same_weights(left: torch.nn.Module, right: torch.nn.Module) -> None:
    left, right = left.state_dict(), right.state_dict()
    assert left.keys() == right.keys()
    for name, tensor in left.items():
        assert torch.equal(tensor, right[name]), name


def tensors_in(folder: Path) -> dict[str, torch.Tensor]:
    return {name: tensor for file in folder.glob("*.safetensors") for name, tensor in load_file(file).items()}


@pytest.mark.parametrize("shard", ["5GB", "20KB"])
@pytest.mark.parametrize("options", [{}, {"tie_word_embeddings": True}, {"num_experts": 1, "num_experts_per_tok": 1}])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_checkpoints_go_both_ways_bit_for_bit(tmp_path, options, shard, dtype):
    stock, network = (model.to(dtype) for model in pair(num_key_value_heads=2, **options))
    stock.save_pretrained(tmp_path / "stock", max_shard_size=shard)
    network.save_pretrained(tmp_path / "ours", max_shard_size=shard)
    assert_same_weights(OlmoeForCausalLM.from_pretrained(tmp_path / "stock", dtype=dtype), stock)
    back = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "ours", dtype=dtype)
    assert type(back) is transformers.OlmoeForCausalLM
    assert_same_weights(back, network)
    theirs, mine = tensors_in(tmp_path / "stock"), tensors_in(tmp_path / "ours")
    assert theirs.keys() == mine.keys() and all(torch.equal(theirs[name], mine[name]) for name in theirs)
    assert "model.layers.0.mlp.experts.0.down_proj.weight" in mine  # the published layout, which vLLM reads
    assert (len(list((tmp_path / "ours").glob("*.safetensors"))) > 1) == (shard == "20KB")


def test_a_stacked_checkpoint_loads(tmp_path):
    network = ours()
    network.save_pretrained(tmp_path)
    save_file(network.state_dict(), tmp_path / "model.safetensors", {"format": "pt"})
    assert_same_weights(OlmoeForCausalLM.from_pretrained(tmp_path), network)


def test_the_decoder_alone_and_a_head_without_weights(tmp_path):
    network = ours()
    network.save_pretrained(tmp_path / "whole")
    decoder = OlmoeModel.from_pretrained(tmp_path / "whole")
    assert_same_weights(decoder, network.model)
    decoder.save_pretrained(tmp_path / "decoder")
    with pytest.raises(ValueError, match=r"missing lm_head\.weight"):
        OlmoeForCausalLM.from_pretrained(tmp_path / "decoder")


def test_load_state_dict_takes_a_published_checkpoint(tmp_path):
    """What Trainer does on resume: the file's tensors, one per expert, straight into the model, not strictly."""
    trained, fresh = ours(), ours()
    trained.save_pretrained(tmp_path)
    published = tensors_in(tmp_path)
    result = fresh.load_state_dict(published, strict=False)
    assert not result.missing_keys and not result.unexpected_keys
    assert_same_weights(fresh, trained)
    published = tensors_in(tmp_path)
    del published["model.layers.0.mlp.experts.2.down_proj.weight"]
    with pytest.raises(KeyError, match=r"layers\.0\.mlp\.experts\.2\.down_proj\.weight"):
        fresh.load_state_dict(published, strict=False)


EXPERT = "model.layers.1.mlp.experts.3.up_proj.weight"
BROKEN = {
    "missing model.norm.weight": {"model.norm.weight": None},
    f"missing {EXPERT}": {EXPERT: None},
    "missing model.layers.0.mlp.experts.7.gate_proj.weight": {
        f"model.layers.{layer}.mlp.experts.7.{name}_proj.weight": None
        for layer in range(3)
        for name in ("gate", "up", "down")
    },
    "unexpected model.layers.0.mlp.bias": {"model.layers.0.mlp.bias": torch.zeros(3)},
    "unexpected model.layers.0.mlp.experts.8.up_proj.weight": {
        "model.layers.0.mlp.experts.8.up_proj.weight": torch.zeros(24, 32)
    },
    "misshapen model.norm.weight: (31,) in the checkpoint, (32,) in the network": {
        "model.norm.weight": torch.zeros(31)
    },
    f"misshapen {EXPERT}: (24, 31) in the checkpoint, (24, 32) in the network": {EXPERT: torch.zeros(24, 31)},
}


@pytest.mark.parametrize("problem", BROKEN)
def test_a_checkpoint_that_is_not_this_network_is_refused(problem, tmp_path):
    ours().save_pretrained(tmp_path)
    tensors = tensors_in(tmp_path)
    for name, tensor in BROKEN[problem].items():
        if tensor is None:
            del tensors[name]
        else:
            tensors[name] = tensor
    save_file(tensors, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(ValueError) as error:
        OlmoeForCausalLM.from_pretrained(tmp_path)
    assert problem in str(error.value).replace("\n  ", "\n").splitlines()


def test_every_layer_of_a_deeper_checkpoint_is_named(tmp_path):
    ours().save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 2}))
    with pytest.raises(ValueError, match=r"(?s)unexpected model\.layers\.2\.mlp\.experts\.0\.down_proj.* and 13 more"):
        OlmoeForCausalLM.from_pretrained(tmp_path)


def test_sizes_given_beside_the_folder_count(tmp_path):
    network = ours()
    network.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"num_experts": 16}))
    assert_same_weights(OlmoeForCausalLM.from_pretrained(tmp_path, num_experts=8), network)
    with pytest.raises(ValueError, match=r"unexpected model\.layers\.0\.mlp\.experts\.4\.down_proj\.weight"):
        OlmoeForCausalLM.from_pretrained(tmp_path, num_experts=4)


def test_a_config_may_come_from_elsewhere(tmp_path):
    network = ours()
    network.save_pretrained(tmp_path)
    for config in (str(tmp_path), network.config, transformers.AutoConfig.from_pretrained(tmp_path)):
        loaded = OlmoeForCausalLM.from_pretrained(tmp_path, config=config)
        assert type(loaded.config) is type(loaded.model.config) is OlmoeConfig
        assert_same_weights(loaded, network)


def test_files_that_transformers_does_not_read_do_not_count(tmp_path):
    network = ours()
    ours(num_hidden_layers=5).save_pretrained(tmp_path, max_shard_size="20KB")
    network.save_pretrained(tmp_path / "new")
    for name in ("config.json", "model.safetensors"):
        (tmp_path / "new" / name).rename(tmp_path / name)
    assert_same_weights(OlmoeForCausalLM.from_pretrained(tmp_path), network)


def test_one_stacked_layer_among_published_ones(tmp_path):
    """Alone it is read; beside its own experts it would be left out in silence, so it is refused."""
    network = ours()
    network.save_pretrained(tmp_path)
    tensors, block = tensors_in(tmp_path), "model.layers.1.mlp.experts"
    stack = {name: tensor for name, tensor in network.state_dict().items() if name.startswith(block)}
    save_file(tensors | stack, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(ValueError, match=rf"unexpected {block}\.down_proj"):
        OlmoeForCausalLM.from_pretrained(tmp_path)
    single = {name: tensor for name, tensor in tensors.items() if not name.startswith(block)}
    save_file(single | stack, tmp_path / "model.safetensors", {"format": "pt"})
    assert_same_weights(OlmoeForCausalLM.from_pretrained(tmp_path), network)


def test_a_checkpoint_in_the_hubs_cache_is_read_as_closely(tmp_path):
    repository = tmp_path / "models--somebody--olmoe"
    snapshot = repository / "snapshots" / "0123456789012345678901234567890123456789"
    network = ours()
    network.save_pretrained(snapshot)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(snapshot.name)
    hub = {"cache_dir": tmp_path, "local_files_only": True}
    assert_same_weights(OlmoeForCausalLM.from_pretrained("somebody/olmoe", **hub), network)
    for problem in (f"missing {EXPERT}", f"misshapen {EXPERT}: (24, 31) in the checkpoint, (24, 32) in the network"):
        tensors = tensors_in(snapshot)
        tensors.pop(EXPERT, None)
        replacement = {name: tensor for name, tensor in BROKEN[problem].items() if tensor is not None}
        save_file(tensors | replacement, snapshot / "model.safetensors")
        with pytest.raises(ValueError) as error:
            OlmoeForCausalLM.from_pretrained("somebody/olmoe", **hub)
        assert problem in str(error.value)


def test_callers_may_look_for_themselves(tmp_path):
    ours().save_pretrained(tmp_path)
    tensors = tensors_in(tmp_path)
    del tensors["model.norm.weight"]
    save_file(tensors, tmp_path / "model.safetensors", {"format": "pt"})
    _, info = OlmoeForCausalLM.from_pretrained(tmp_path, output_loading_info=True)
    assert list(info["missing_keys"]) == ["model.norm.weight"]


def test_a_pickle_checkpoint_needs_an_explicit_option(tmp_path):
    network = ours()
    network.config.save_pretrained(tmp_path)
    torch.save(network.state_dict(), tmp_path / "pytorch_model.bin")
    with pytest.raises(ValueError, match=r"pickle checkpoint \(pytorch_model.bin\).*use_safetensors=False"):
        OlmoeForCausalLM.from_pretrained(tmp_path)
    assert_same_weights(OlmoeForCausalLM.from_pretrained(tmp_path, use_safetensors=False), network)


def test_the_back_ends_names_are_not_saved(tmp_path):
    OlmoeForCausalLM(OlmoeConfig(**SMALL, attn_implementation="eager")).save_pretrained(tmp_path)
    assert "implementation" not in (tmp_path / "config.json").read_text()
