"""Which recipe and machine would lose updates, and what holds the numbers where they do not."""

import json

import pytest

from olmoe_ft.recipe import RecipeError, load_recipe
from olmoe_ft.recipe.precision import check_optimizer, deepspeed_here, precision, trains_bfloat16

SFT, LORA = "recipes/tiny/sft.yaml", "recipes/tiny/sft-lora.yaml"
HALF, HAND = "model.dtype=bfloat16", "training.optim=adamw_torch"


@pytest.mark.parametrize(
    ("file", "overrides", "expected"),
    [
        (SFT, [], False),
        (SFT, [HALF], True),
        (LORA, [HALF, "router.train=frozen"], False),
        (LORA, [HALF, "router.train=lora"], False),
        (LORA, [HALF, "router.train=full"], True),
    ],
)
def test_who_trains_bf16_weights(file, overrides, expected):
    recipe = load_recipe(file, [*overrides, HAND])
    assert trains_bfloat16(recipe) is expected
    check_optimizer(recipe, True, "zero2")  # DeepSpeed holds them in fp32
    if expected:
        with pytest.raises(RecipeError, match="training.optim.*adamw_torch.*on gpu.*zero2.yaml"):
            check_optimizer(recipe, False, "gpu")
    else:
        check_optimizer(recipe, False, "gpu")
    check_optimizer(load_recipe(file, overrides), False, "gpu")  # the default is ours


def test_what_is_said():
    assert precision(load_recipe(SFT), False) == ("float32", "float32 (the weights)", "float32", "float32")
    half = load_recipe(SFT, [HALF, "training.gradient_accumulation_steps=4"])
    assert precision(half, False).moments == "16 bits for both"
    assert precision(half, False).gradients == "bfloat16, summed in float32"
    assert precision(half, True).master == "float32 (DeepSpeed)"
    mixed = precision(load_recipe(LORA, [HALF, "router.train=full"]), False)
    assert mixed.weights == "bfloat16 (routers) and float32 (adapters)"
    by_hand = precision(load_recipe(SFT, ["training.optim=adafactor"]), False)
    assert by_hand.moments == "as adafactor keeps them"


def test_a_launch_whose_deepspeed_keeps_no_fp32(tmp_path):
    file = tmp_path / "ds.json"
    file.write_text(json.dumps({"bf16": {"enabled": True, "bf16_master_weights_and_grads": True}}))
    launched = {"ACCELERATE_USE_DEEPSPEED": "true", "ACCELERATE_DEEPSPEED_CONFIG_FILE": str(file)}
    with pytest.raises(RecipeError, match="bf16_master_weights_and_grads"):
        deepspeed_here(launched)
    file.write_text(json.dumps({"bf16": {"enabled": "auto"}}))
    assert deepspeed_here(launched) is True
    assert deepspeed_here({}) is False
    for broken in ("{", "[]"):
        file.write_text(broken)
        with pytest.raises(RecipeError, match="ds.json: .*configs/deepspeed/"):
            deepspeed_here(launched)
    with pytest.raises(RecipeError, match="gone.json: the DeepSpeed configuration cannot be read"):
        deepspeed_here({**launched, "ACCELERATE_DEEPSPEED_CONFIG_FILE": str(tmp_path / "gone.json")})
    with pytest.raises(RecipeError, match="FSDP"):
        deepspeed_here({"ACCELERATE_USE_FSDP": "true"})
