"""What a machine, a package or a launch cannot do for a recipe."""

import json

import pytest

from olmoe_ft.planning.machine import read_machine
from olmoe_ft.recipe import RecipeError, load_recipe
from olmoe_ft.recipe.mixed_precision import check_mixed_precision, check_shards
from olmoe_ft.recipe.options import device
from olmoe_ft.recipe.options.device import check_device, check_packages
from olmoe_ft.recipe.precision import deepspeed_here

SFT = "recipes/tiny/sft.yaml"
HALF = "model.dtype=bfloat16"


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("training.tf32=true", "training.tf32: found true on here, which has no GPU"),
        ("training.activation_offloading=true", "training.activation_offloading: found true on here, which has no GPU"),
        ("model.attn_implementation=flash_attention_2", 'found "flash_attention_2" on here, which has no GPU'),
        (
            "model.attn_implementation=flex_attention",
            "flex_attention gives wrong results on some CPUs.*remove it: sdpa",
        ),
    ],
)
def test_what_needs_a_gpu(override, said):
    recipe = load_recipe(SFT, [HALF, override])
    check_device(recipe, True, "here")
    with pytest.raises(RecipeError, match=said):
        check_device(recipe, False, "here")
    check_device(load_recipe(SFT), False, "here")


@pytest.mark.parametrize(
    ("override", "package"),
    [
        ("training.optim=paged_adamw_8bit", "bitsandbytes"),
        ("training.optim=ademamix", "bitsandbytes"),
        ("training.optim=adamw_torch_8bit", "torchao"),
        ("training.optim=grokadamw", "grokadamw"),
        ("training.optim=stable_adamw", "optimi"),
        ("training.optim=adamw_torch_xla", "torch_xla"),
        ("model.attn_implementation=flash_attention_2", "flash_attn"),
        ("model.attn_implementation=flash_attention_3", "flash_attn_interface"),
    ],
)
def test_what_needs_a_package(monkeypatch, override, package):
    recipe = load_recipe(SFT, [HALF, override])
    monkeypatch.setattr(device, "find_spec", lambda name: None if name == package else object())
    with pytest.raises(RecipeError, match=f"needs the package {package}, which is not installed here"):
        check_packages(recipe)
    monkeypatch.setattr(device, "find_spec", lambda name: object())
    check_packages(recipe)


@pytest.mark.parametrize("kind", ["tp", "cp", "sp", "dp_shard", "dp_replicate"])
def test_rows_are_not_cut_up(tmp_path, kind):
    variable = f"PARALLELISM_CONFIG_{kind.upper()}_SIZE"
    with pytest.raises(RecipeError, match=f"the environment: found {variable} 2; allowed: 1, because attention"):
        deepspeed_here({variable: "2"})
    assert deepspeed_here({variable: "1", "PARALLELISM_CONFIG_CP_BACKEND": "torch"}) is False
    file = tmp_path / "machine.yaml"
    file.write_text(
        f"distributed_type: MULTI_GPU\nnum_processes: 2\nparallelism_config: {{parallelism_config_{kind}_size: 2}}"
    )
    with pytest.raises(RecipeError, match=f"machine.yaml: found parallelism_config_{kind}_size 2; allowed: 1"):
        read_machine(str(file))
    check_shards("a file", {f"{kind}_size": 1})


@pytest.mark.parametrize(
    ("settings", "said"),
    [({"sequence_parallel_size": 2}, "found sp_size 2"), ({"tensor_parallel": {"autotp_size": 4}}, "found tp_size 4")],
)
def test_nor_by_deepspeed(tmp_path, settings, said):
    (file := tmp_path / "ds.json").write_text(json.dumps(settings))
    with pytest.raises(RecipeError, match=f"ds.json: {said}"):
        deepspeed_here({"ACCELERATE_USE_DEEPSPEED": "true", "ACCELERATE_DEEPSPEED_CONFIG_FILE": str(file)})


def test_megatron_is_refused():
    with pytest.raises(RecipeError, match="Megatron-LM is not supported"):
        deepspeed_here({"ACCELERATE_USE_MEGATRON_LM": "true"})


@pytest.mark.parametrize(("dtype", "right"), [("float32", ["no"]), ("bfloat16", ["no", "bf16"])])
def test_the_recipe_decides_the_arithmetic(dtype, right):
    recipe = load_recipe(SFT, [f"model.dtype={dtype}"])
    for mixed in ("no", "bf16", "fp16", "fp8"):
        if mixed in right:
            check_mixed_precision(recipe, mixed, "gpu.yaml")
        else:
            with pytest.raises(
                RecipeError, match=f"gpu.yaml: found mixed_precision {mixed}, but model.dtype is {dtype}"
            ):
                check_mixed_precision(recipe, mixed, "gpu.yaml")
