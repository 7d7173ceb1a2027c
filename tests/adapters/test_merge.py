"""Adapters in and out: stock PEFT's load here, ours load there, and merged ones in stock transformers."""

import json
from pathlib import Path

import peft
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from support.networks import SMALL, assert_close, shaken

from olmoe_ft.adapters.lora import lora_config
from olmoe_ft.adapters.merge import merge
from olmoe_ft.checkpoints.base_model import base_of, fingerprint, local_folder, note_base
from olmoe_ft.checkpoints.weights import load_whole
from olmoe_ft.data.tokenizer import load_tokenizer
from olmoe_ft.model import OlmoeConfig, OlmoeForCausalLM
from olmoe_ft.recipe import RecipeError
from olmoe_ft.recipe.schema import Lora

IDS = torch.arange(3, 40).view(1, -1)
TOKENIZER = Path(__file__).parents[2] / "data/skills/tokenizer"
WHOLE = {"r": 4, "alpha": 8.0, "attention": True, "experts": True}
FORMS = {
    "router full": ("full", WHOLE),
    "router lora": ("lora", WHOLE),
    "router frozen": ("frozen", WHOLE),
    "experts only, rslora": ("frozen", WHOLE | {"attention": False, "use_rslora": True}),
    "attention only": ("frozen", WHOLE | {"experts": False}),
    "router lora only": ("lora", WHOLE | {"attention": False, "experts": False}),
}
SIZES = SMALL | {"vocab_size": 512, "eos_token_id": 511}


@torch.no_grad()
def logits(model: torch.nn.Module) -> torch.Tensor:
    return model.eval()(input_ids=IDS).logits


@pytest.fixture
def tokenizer():
    return load_tokenizer(str(TOKENIZER), SIZES["vocab_size"])


def write_base(folder: Path, dtype=torch.float32, **options) -> Path:
    shaken(transformers.OlmoeForCausalLM(transformers.OlmoeConfig(**SIZES | options))).to(dtype).save_pretrained(folder)
    return folder


def write_adapter(folder: Path, base: Path, form: str = "router full", network=transformers.OlmoeForCausalLM) -> Path:
    """An adapter by stock PEFT with random factors, on stock transformers or on our network."""
    router, lora = FORMS[form]
    model = peft.get_peft_model(network.from_pretrained(base, dtype="float32"), lora_config(Lora(**lora), router))
    for weight in model.parameters():
        if weight.requires_grad:
            torch.nn.init.normal_(weight, std=0.2)
    model.save_pretrained(folder)
    return folder


def stock_logits(folder: Path) -> torch.Tensor:
    return logits(transformers.AutoModelForCausalLM.from_pretrained(folder, dtype="float32"))


def adapted_logits(base: Path, adapter: Path) -> torch.Tensor:
    model = transformers.AutoModelForCausalLM.from_pretrained(base, dtype="float32")
    return logits(peft.PeftModel.from_pretrained(model, adapter))


@pytest.mark.parametrize("form", FORMS)
def test_an_adapter_of_stock_peft_loads_and_merges_here(tmp_path, tokenizer, form):
    base = write_base(tmp_path / "base")
    adapter = write_adapter(tmp_path / "adapter", base, form)
    expected = adapted_logits(base, adapter)
    assert_close(logits(load_whole(str(adapter))), expected)
    merge(str(adapter), tokenizer, tmp_path / "merged")
    assert_close(stock_logits(tmp_path / "merged"), expected)
    assert_close(logits(OlmoeForCausalLM.from_pretrained(tmp_path / "merged")), expected)
    assert (expected - stock_logits(base)).abs().max() > 1e-2
    kinds = FORMS[form][0]
    gates = [name for name in load_file(adapter / "adapter_model.safetensors") if "mlp.gate" in name]
    assert len(gates) == {"full": 3, "lora": 6, "frozen": 0}[kinds]


@pytest.mark.parametrize("form", FORMS)
def test_an_adapter_from_here_loads_in_stock_libraries(tmp_path, form):
    base = write_base(tmp_path / "base")
    adapter = write_adapter(tmp_path / "adapter", base, form, OlmoeForCausalLM)
    ours = peft.PeftModel.from_pretrained(OlmoeForCausalLM.from_pretrained(base), adapter)
    assert_close(adapted_logits(base, adapter), logits(ours))


def test_the_merged_folder_is_the_published_layout(tmp_path, tokenizer):
    base = write_base(tmp_path / "base")
    merge(str(write_adapter(tmp_path / "adapter", base)), tokenizer, tmp_path / "merged")
    assert tensors_of(tmp_path / "merged").keys() == tensors_of(base).keys()
    index = json.loads((tmp_path / "merged/model.safetensors.index.json").read_text())
    assert index["metadata"]["total_size"] == sum(tensor.nbytes for tensor in tensors_of(base).values())
    assert len(set(index["weight_map"].values())) == 1 + SIZES["num_hidden_layers"]  # a file a layer, one for the rest
    assert {folder.name for folder in tmp_path.iterdir()} == {"base", "adapter", "merged"}
    assert load_tokenizer(str(tmp_path / "merged"), SIZES["vocab_size"]).vocab_size == tokenizer.vocab_size


def test_merging_takes_no_name_but_its_own(tmp_path, tokenizer, monkeypatch):
    """Folders beside it are somebody's, whatever they are called; what fails leaves nothing."""
    base = write_base(tmp_path / "base")
    adapter = str(write_adapter(tmp_path / "adapter", base))
    for name in ("merged.partial", "merged.tmp"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "thesis.txt").write_text("x")
    before = {*tmp_path.rglob("*")}
    with monkeypatch.context() as broken, pytest.raises(OSError):
        broken.setattr(type(tokenizer), "save_pretrained", _full)
        merge(adapter, tokenizer, tmp_path / "merged")
    assert {*tmp_path.rglob("*")} == before
    merge(adapter, tokenizer, tmp_path / "merged")
    assert {*tmp_path.rglob("*")} > before
    assert (tmp_path / "merged").stat().st_mode == base.stat().st_mode  # not a temporary folder's, for its owner alone


def _full(*args):
    raise OSError(28, "No space left on device")


@pytest.mark.parametrize(("of_base", "expected"), [
    (None, [0, 511]),  # no generation_config.json
    (511, [0, 511]),
    ([511, 7], [0, 511, 7]),
])  # fmt: skip
def test_a_stock_generate_ends_where_the_adapter_learned_to(tmp_path, of_base, expected):
    """The tokenizer of the training ends a text with token 0, the base with 511, and with what it lists itself.

    Logits are all 0, so a greedy choice takes the first token, 0: the end.
    """
    base = write_base(tmp_path / "base")
    weights = load_file(base / "model.safetensors")
    weights["lm_head.weight"].zero_()
    save_file(weights, base / "model.safetensors", {"format": "pt"})
    file = base / "generation_config.json"
    if of_base is None:
        file.unlink()
    else:
        file.write_text(json.dumps({"eos_token_id": of_base, "do_sample": False, "temperature": 0.7}))
    other_end = load_tokenizer(str(TOKENIZER), SIZES["vocab_size"])
    other_end.eos_token = "|||IP_ADDRESS|||"
    merge(str(write_adapter(tmp_path / "adapter", base)), other_end, tmp_path / "merged")
    written = [json.loads((tmp_path / "merged" / name).read_text()) for name in ("config.json", file.name)]
    assert [values["eos_token_id"] for values in written] == [0, expected]
    assert [values["pad_token_id"] for values in written] == [1, 1]
    assert of_base is None or written[1]["temperature"] == 0.7
    model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "merged")
    assert model.generate(IDS, max_new_tokens=5)[0].tolist() == [*IDS[0].tolist(), 0]


def tensors_of(folder: Path) -> dict[str, torch.Tensor]:
    return {name: tensor for file in sorted(folder.glob("*.safetensors")) for name, tensor in load_file(file).items()}


@pytest.mark.parametrize(("of_base", "asked", "expected"), [
    ("float32", "auto", "float32"),
    ("float32", "bfloat16", "bfloat16"),
    ("bfloat16", "auto", "bfloat16"),
    ("bfloat16", "float32", "float32"),
])  # fmt: skip
def test_sums_are_rounded_once_to_the_type_that_is_asked_for(tmp_path, tokenizer, of_base, asked, expected):
    base = write_base(tmp_path / "base", getattr(torch, of_base))
    adapter = write_adapter(tmp_path / "adapter", base)
    merge(str(adapter), tokenizer, tmp_path / "merged", asked)
    exact = load_whole(str(adapter), "float32")
    exact.save_pretrained(tmp_path / "exact")
    dtype = getattr(torch, expected)
    merged = tensors_of(tmp_path / "merged")
    for name, tensor in tensors_of(tmp_path / "exact").items():
        assert merged[name].dtype == dtype
        # fp32 sums may differ by an ulp, which now and then rounds to the other neighbour
        torch.testing.assert_close(
            merged[name], tensor.to(dtype), rtol=2**-7 if expected == "bfloat16" else 0, atol=1e-6
        )
    assert json.loads((tmp_path / "merged/config.json").read_text())["dtype"] == expected


@pytest.mark.parametrize("tied", [False, True])
def test_without_an_adapter_or_from_stacked_experts_weights_only_change_their_type(tmp_path, tokenizer, tied):
    base = write_base(tmp_path / "base", tie_word_embeddings=tied)
    stacked = tmp_path / "stacked"
    stacked.mkdir()
    state = OlmoeForCausalLM.from_pretrained(base).state_dict()
    save_file({name: tensor.clone() for name, tensor in state.items()}, stacked / "model.safetensors", {"format": "pt"})
    (stacked / "config.json").write_text((base / "config.json").read_text())
    for start in (base, stacked):
        merge(str(start), tokenizer, tmp_path / f"{start.name}-out")
        written = tensors_of(tmp_path / f"{start.name}-out")
        original = {name: tensor for name, tensor in tensors_of(base).items() if not (tied and "lm_head" in name)}
        assert written.keys() == original.keys()
        assert all(torch.equal(written[name], original[name]) for name in original)


@pytest.mark.parametrize(("options", "says"), [
    ({"intermediate_size": 40}, "does not fit its base.*size mismatch"),
    ({"num_hidden_layers": 2}, "does not fit its base.*tensors are missing on one side"),
    ({"num_experts": 4}, "does not fit its base.*size mismatch"),
])  # fmt: skip
def test_an_adapter_of_another_shape_is_refused(tmp_path, tokenizer, options, says):
    adapter = write_adapter(tmp_path / "adapter", write_base(tmp_path / "base"))
    config = json.loads((adapter / "adapter_config.json").read_text())
    config["base_model_name_or_path"] = str(write_base(tmp_path / "other", **options))
    (adapter / "adapter_config.json").write_text(json.dumps(config))
    for attempt in (lambda: merge(str(adapter), tokenizer, tmp_path / "merged"), lambda: load_whole(str(adapter))):
        with pytest.raises(RecipeError, match=says):
            attempt()
    assert not list(tmp_path.glob("merged*"))


def test_an_adapter_of_another_base_is_refused(tmp_path, tokenizer):
    """The base is trained on in place: same shapes, other weights."""
    base = write_base(tmp_path / "base")
    adapter = write_adapter(tmp_path / "adapter", base)
    note_base(adapter, fingerprint(str(base)))
    assert base_of(str(adapter)) == str(base)
    weights = load_file(base / "model.safetensors")
    weights["model.layers.1.mlp.experts.5.up_proj.weight"][0, 0] += 1e-3
    save_file(weights, base / "model.safetensors", {"format": "pt"})
    for attempt in (lambda: merge(str(adapter), tokenizer, tmp_path / "merged"), lambda: load_whole(str(adapter))):
        with pytest.raises(RecipeError, match="was trained on other weights than those in .*base now: bring"):
            attempt()
    assert not list(tmp_path.glob("merged*"))


def test_a_base_that_lacks_a_tensor_is_refused_and_nothing_is_left(tmp_path, tokenizer):
    base = write_base(tmp_path / "base")
    weights = load_file(base / "model.safetensors")
    for name, says in {
        "model.layers.2.mlp.experts.5.up_proj.weight": "the experts of model.layers.2. cannot be read",
        "model.layers.2.self_attn.q_proj.weight": r"q_proj.weight: nothing there, \(32, 32\)",
    }.items():
        save_file({key: value for key, value in weights.items() if key != name}, base / "model.safetensors")
        with pytest.raises(RecipeError, match=says):
            merge(str(base), tokenizer, tmp_path / "merged")
        assert not list(tmp_path.glob("merged*"))


def test_our_network_takes_an_adapter_through_transformers_own_method(tmp_path):
    """`model.load_adapter`, transformers' way to PEFT, multiplies too."""
    base = write_base(tmp_path / "base")
    adapter = write_adapter(tmp_path / "adapter", base, "experts only, rslora")
    model = OlmoeForCausalLM(OlmoeConfig.from_pretrained(base))
    model.load_state_dict(load_whole(str(base)).state_dict())
    model.load_adapter(str(adapter))
    assert_close(logits(model), adapted_logits(base, adapter))


def test_a_bf16_base_with_a_router_saved_whole_is_one_type_when_it_is_merged_in_memory(tmp_path):
    adapter = write_adapter(tmp_path / "adapter", write_base(tmp_path / "base", torch.bfloat16))
    model = load_whole(str(adapter))
    assert {weight.dtype for weight in model.parameters()} == {torch.bfloat16}
    assert logits(model).isfinite().all()


STOCK = {
    "patterns": {
        "rank_pattern": {"q_proj": 8},
        "alpha_pattern": {"k_proj": 32},
        "target_modules": ["q_proj", "k_proj"],
    },
    "dora on attention": {"use_dora": True, "target_modules": ["q_proj", "v_proj"]},
    "all-linear": {"target_modules": "all-linear"},
    "a regular expression": {"target_modules": r".*layers\.[02]\.self_attn\.(q|o)_proj"},
    "biases": {"lora_bias": True, "target_modules": ["q_proj", "o_proj"]},
    "head and embedding": {"target_modules": ["lm_head", "embed_tokens"]},
    "a norm and the head whole": {"target_modules": ["q_proj"], "modules_to_save": ["norm", "lm_head"]},
}


def stock_adapter(folder: Path, base: Path, **options) -> Path:
    model = peft.get_peft_model(
        transformers.OlmoeForCausalLM.from_pretrained(base), peft.LoraConfig(r=4, init_lora_weights=False, **options)
    )
    for name, weight in model.named_parameters():
        if weight.requires_grad and "magnitude" not in name:
            torch.nn.init.normal_(weight, std=0.1)
    model.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("options", STOCK.values(), ids=STOCK)
def test_adapters_of_other_kinds_than_ours_merge_too(tmp_path, tokenizer, options):
    base = write_base(tmp_path / "base", attention_bias=True)
    adapter = stock_adapter(tmp_path / "adapter", base, **options)
    expected = adapted_logits(base, adapter)
    merge(str(adapter), tokenizer, tmp_path / "merged")
    assert_close(stock_logits(tmp_path / "merged"), expected, 2e-5)
    assert_close(logits(load_whole(str(adapter))), expected, 2e-5)


@pytest.mark.parametrize(("tied", "options", "says"), [
    (True, {"target_modules": ["lm_head"]}, "adapts embedding or head, which are one tensor in this base"),
    (True, {"target_modules": ["embed_tokens"]}, "adapts embedding or head, which are one tensor in this base"),
    (False, {"target_modules": ["q_proj"], "lora_bias": True}, "lora_bias cannot be folded into a base without biases"),
    (False, {"target_modules": ["q_proj"], "trainable_token_indices": [3, 4]}, "cannot be folded"),
])  # fmt: skip
def test_what_cannot_be_folded_is_refused(tmp_path, tokenizer, tied, options, says):
    adapter = stock_adapter(tmp_path / "adapter", write_base(tmp_path / "base", tie_word_embeddings=tied), **options)
    with pytest.raises(RecipeError, match=says):
        merge(str(adapter), tokenizer, tmp_path / "merged")
    assert not list(tmp_path.glob("merged*"))


def test_the_base_is_found_where_the_run_is_now(tmp_path):
    """A run is moved; another is made in its old place. `final/` and `checkpoints/*/` both find their own base."""
    run, other = tmp_path / "run", tmp_path / "moved"
    adapters = []
    base = write_base(run / "base")
    for place in ("final", "checkpoints/checkpoint-3"):
        adapters.append(write_adapter(run / place, base, "attention only").relative_to(run))
        note_base(run / place, fingerprint(str(base)))
    run.rename(other)
    assert all(base_of(str(other / adapter)) == str(other / "base") for adapter in adapters)
    write_base(run / "base")  # other weights
    assert all(base_of(str(other / adapter)) == str(other / "base") for adapter in adapters)


def test_a_base_on_the_hub_is_not_mistaken_for_a_folder_nearby(tmp_path):
    adapter = write_adapter(tmp_path / "adapter", write_base(tmp_path / "base"), "attention only")
    config = json.loads((adapter / "adapter_config.json").read_text())
    for named, expected in (("allenai/OLMoE-1B-7B-0924", "allenai/OLMoE-1B-7B-0924"), (None, None)):
        (adapter / "adapter_config.json").write_text(json.dumps(config | {"base_model_name_or_path": named}))
        if expected:
            assert base_of(str(adapter)) == expected
        else:
            with pytest.raises(RecipeError, match="names no base_model_name_or_path"):
                base_of(str(adapter))


def test_a_base_that_is_nowhere_is_said_to_be():
    with pytest.raises(
        RecipeError, match="nobody/nothing: there is no such folder here and no such model in the cache"
    ):
        local_folder("nobody/nothing")


def test_the_fingerprint_is_of_the_tensors_not_of_their_files(tmp_path):
    base = write_base(tmp_path / "base")
    weights = load_file(base / "model.safetensors")
    sharded = tmp_path / "sharded"
    transformers.AutoModelForCausalLM.from_pretrained(base).save_pretrained(sharded, max_shard_size="20KB")
    assert len(list(sharded.glob("*.safetensors"))) > 2
    assert fingerprint(str(sharded)) == fingerprint(str(base))
    weights["model.norm.weight"] += 1
    save_file(weights, base / "model.safetensors", {"format": "pt"})
    assert fingerprint(str(sharded)) != fingerprint(str(base))


def test_numbers_that_are_not_finite_are_not_merged(tmp_path, tokenizer):
    adapter = write_adapter(tmp_path / "adapter", write_base(tmp_path / "base"))
    weights = load_file(adapter / "adapter_model.safetensors")
    name = next(name for name in weights if "layers.1.self_attn.v_proj.lora_B" in name)
    weights[name][3, 0] = torch.nan
    save_file(weights, adapter / "adapter_model.safetensors", metadata={"format": "pt"})
    with pytest.raises(RecipeError, match=r"hold NaN or infinity: model\.layers\.1\.self_attn\.v_proj\.weight;"):
        merge(str(adapter), tokenizer, tmp_path / "merged")
    assert not (tmp_path / "merged").exists()
