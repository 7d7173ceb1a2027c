"""The same recipe on one process, ZeRO-2 and ZeRO-3: the same losses, and a checkpoint stock libraries load."""

import json
import math
from pathlib import Path

import peft
import pytest
import torch
import transformers
from safetensors.torch import load_file

from olmoe_ft.checkpoints.weights import load_whole
from olmoe_ft.stages import STAGES

RECIPES = ["sft", "sft-lora", "dpo", "dpo-lora", "kto", "kto-lora"]
TINY = 1_976_448  # weights of configs/model/olmoe_tiny.json
IDS = torch.arange(3, 60)[None]


@pytest.mark.parametrize("shape", ["zero2", "zero3"])
@pytest.mark.parametrize("recipe", RECIPES)
def test_the_losses_of_ten_steps_equal_one_process(short_run, recipe, shape):
    """One process takes two micro-batches of 8 a step, two processes one each: the same micro-batches."""
    one, other = short_run(recipe, "one").records, short_run(recipe, shape).records
    assert [record["step"] for record in other] == list(range(1, 11))
    for expected, actual in zip(one, other, strict=True):
        for name in ("loss", "loss/task", "router/loss", "router/load_balancing_loss", "router/z_loss", "grad_norm"):
            assert actual[name] == pytest.approx(expected[name], rel=1e-4), (expected["step"], name)
        for name in (name for name in expected if name in STAGES[recipe.partition("-")[0]].metrics):
            # rewards are differences of sums over whole answers
            assert actual[name] == pytest.approx(expected[name], rel=1e-3, abs=1e-4), (expected["step"], name)
        assert actual["num_tokens"] == expected["num_tokens"]
        assert actual["router/tokens"] == expected["router/tokens"]
        for name in (name for name in expected if "/layer_" in name):
            # a choice between two experts that are alike to 1e-6 may fall otherwise
            assert actual[name] == pytest.approx(expected[name], abs=0.02), (expected["step"], name)


@pytest.mark.parametrize(
    ("shape", "engine", "a_weight"), [("one", "no DeepSpeed", 8), ("zero2", "ZeRO-2", 6), ("zero3", "ZeRO-3", 6)]
)
def test_a_launch_records_its_engine_and_plans_its_shards(short_run, shape, engine, a_weight):
    """Of n weights AdamW keeps two moments in fp32, 8 n bytes; ZeRO adds a copy of the weights and halves all of it
    between two processes: 12 n / 2. ZeRO-3 halves the weights themselves, 4 n, too."""
    run = short_run("sft", shape).path
    (launch,) = json.loads((run / "run.json").read_text())["launches"]
    assert launch["engine"] == engine and launch["ended"]["how"] == "finished"
    memory = json.loads((run / "plan.json").read_text())["memory"]
    assert memory["optimizer"] == pytest.approx(
        a_weight * TINY, rel=1e-4
    )  # and the number of the step, for each tensor
    assert memory["weights"] == 4 * TINY // (2 if shape == "zero3" else 1)


@pytest.mark.parametrize("shape", ["zero2", "zero3"])
@pytest.mark.parametrize("recipe", RECIPES)
def test_evaluation_is_that_of_one_process(short_run, recipe, shape):
    """21 rows do not fill the batches of two processes; counting some twice would change every mean by percents."""
    one, other = (json.loads((short_run(recipe, of).path / "summary.json").read_text()) for of in ("one", shape))
    metrics = STAGES[recipe.partition("-")[0]].metrics
    assert {f"eval_{name}" for name in metrics} <= one.keys() & other.keys()
    for name in metrics:
        assert other[f"eval_{name}"] == pytest.approx(one[f"eval_{name}"], rel=1e-3, abs=1e-4), name


@pytest.mark.parametrize("shape", ["one", "zero2", "zero3"])
@pytest.mark.parametrize("recipe", RECIPES)
def test_stock_libraries_load_the_result(short_run, recipe, shape):
    """Stock transformers and stock PEFT give our own logits, those of the one-process run, and not the start's."""
    run, one = short_run(recipe, shape), short_run(recipe, "one")
    actual = stock_logits(run.final)
    torch.testing.assert_close(actual, our_logits(run.final), rtol=0, atol=1e-5)
    # ten steps of Adam enlarge rounding: the runs agree to 1e-3, and a lost or stale tensor would be far off
    torch.testing.assert_close(actual, stock_logits(one.final), rtol=0, atol=1e-3)
    start = run.path / "base" if (run.path / "base").exists() else short_run("sft", "one").final
    assert (actual - stock_logits(start)).abs().max() > 1e-2
    assert not (run.final / "training_args.bin").exists()
    assert {file.name for file in run.path.iterdir()} > {"routing.parquet", "routing.png", "routing_probe.safetensors"}


@pytest.mark.parametrize("shape", ["zero2", "zero3"])
@pytest.mark.parametrize("recipe", RECIPES)
def test_the_experts_of_each_source_are_those_of_one_process(short_run, recipe, shape):
    """Of the same weights at the start not one choice differs; ten steps later one in a hundred may."""
    one, other = (load_file(short_run(recipe, of).path / "routing_probe.safetensors") for of in ("one", shape))
    assert one.keys() == other.keys() and torch.equal(one["sources_start"], other["sources_start"])
    assert (one["sources_start"] != one["sources_end"]).any()
    moved = (one["sources_end"] - other["sources_end"]).abs().sum() / 2
    assert moved <= 0.01 * one["sources_end"].sum()


def stock_logits(folder: Path) -> torch.Tensor:
    adapter = (folder / "adapter_config.json").exists()
    base = peft.PeftConfig.from_pretrained(folder).base_model_name_or_path if adapter else folder
    model = transformers.AutoModelForCausalLM.from_pretrained(base)
    assert type(model) is transformers.OlmoeForCausalLM
    return logits(peft.PeftModel.from_pretrained(model, folder) if adapter else model)


def our_logits(folder: Path) -> torch.Tensor:
    return logits(load_whole(str(folder)))


@torch.no_grad()
def logits(model: torch.nn.Module) -> torch.Tensor:
    return model.eval()(input_ids=IDS).logits


@pytest.mark.parametrize("shape", ["one", "zero2", "zero3"])
def test_an_adapter_moved_its_attention_expert_and_router_weights(short_run, shape):
    tensors = load_file(short_run("sft-lora", shape).final / "adapter_model.safetensors")
    start = load_file(short_run("sft-lora", shape).path / "base" / "model.safetensors")
    moved = {name for name, tensor in tensors.items() if "lora_B" in name and tensor.abs().max() > 0}
    for part in ("self_attn.q_proj", "self_attn.o_proj", "mlp.experts.base_layer", "mlp.experts"):
        for layer in range(4):
            assert f"base_model.model.model.layers.{layer}.{part}.lora_B.weight" in moved
    for layer in range(4):
        name = f"model.layers.{layer}.mlp.gate.weight"
        assert not torch.equal(tensors[f"base_model.model.{name}"], start[name])


@pytest.mark.parametrize("recipe", ["sft", "dpo", "kto"])
def test_loss_is_the_task_loss_plus_the_weighted_router_losses(short_run, recipe):
    for record in short_run(recipe, "one").records:
        weighted = 0.01 * record["router/load_balancing_loss"] + 0.001 * record["router/z_loss"]
        assert record["router/loss"] == pytest.approx(weighted, rel=1e-5)
        assert record["loss"] == pytest.approx(record["loss/task"] + record["router/loss"], rel=1e-5)
        assert 1.0 <= record["router/load_balancing_loss"] < 16 / 4  # balanced at 1, collapsed at E / k


@pytest.mark.parametrize("recipe", ["dpo", "dpo-lora", "kto", "kto-lora"])
@pytest.mark.parametrize("shape", ["one", "zero3"])
def test_preferences_start_where_policy_and_reference_are_the_sft_model(short_run, recipe, shape):
    """Every reward and the KL estimate are 0 before the first update: DPO's loss is -log sigmoid 0, KTO's
    1 - sigmoid 0."""
    first = short_run(recipe, shape).records[0]
    start = math.log(2) if recipe.startswith("dpo") else 0.5
    assert first["loss/task"] == pytest.approx(start, abs=1e-6)
    assert first["rewards/margins"] == pytest.approx(0, abs=1e-6)
    assert first.get("kl", 0) == pytest.approx(0, abs=1e-5)


@pytest.mark.parametrize("stage", ["dpo", "kto"])
def test_adapters_of_preferences_start_from_the_merged_sft_adapter(short_run, stage):
    """The base of their adapter gives the SFT adapter's logits, not those of the model before SFT."""
    base = stock_logits(short_run(f"{stage}-lora", "one").path / "base")
    torch.testing.assert_close(base, stock_logits(short_run("sft-lora", "one").final), rtol=0, atol=1e-5)
