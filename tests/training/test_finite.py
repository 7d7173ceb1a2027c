"""A number that is not finite stops a run before it spoils weights or a checkpoint, and the sentence names the rows."""

import json
import math
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from support.training_cases import FILES, Case

from olmoe_ft.checkpoints.weights import load_whole
from olmoe_ft.model.finite import not_finite
from olmoe_ft.recipe import RecipeError
from olmoe_ft.training.files import to_json
from olmoe_ft.training.finite import NotFinite
from olmoe_ft.training.reference import ReferenceCheck


def weights_of(trainer) -> dict[str, torch.Tensor]:
    return {name: weight.detach().clone() for name, weight in trainer.model.named_parameters()}


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("stage", FILES)
def test_a_loss_that_is_not_finite(make_trainer, stage, dtype):
    """Step 1 moves every weight to about 1e20, which both types hold; the loss of step 2 is NaN."""
    overrides = ("training.learning_rate=1e20", "training.max_steps=4", "training.save_strategy=steps")
    own = (f"model.dtype={dtype}", *(["training.optim=null"] if dtype == "bfloat16" else []))
    trainer = make_trainer(Case(stage), *overrides, *own, "training.save_steps=1")
    with pytest.raises(NotFinite, match="stopped in step 2 of 4, before it changed a weight: the loss is nan") as error:
        trainer.train()
    assert error.value.step == 2 and math.isnan(error.value.values["loss"])
    assert f"{FILES[stage]}.jsonl:" in str(error.value)
    checkpoint = Path(trainer.args.output_dir) / "checkpoint-1"
    assert f"The last checkpoint is {checkpoint}." in str(error.value)
    assert all(tensor.isfinite().all() for tensor in load_file(checkpoint / "model.safetensors").values())
    assert not not_finite(trainer.model), "step 2 was not taken"


@pytest.mark.parametrize(
    ("stage", "layout"), [("sft", "padded"), ("sft", "packed"), ("dpo", "padded"), ("kto", "padded")]
)
def test_the_rows_of_the_offending_micro_batch(make_trainer, stage, layout):
    """Of four micro-batches of two rows the third is wrong: its rows alone are named, by file and line."""
    trainer = make_trainer(Case(stage, layout=layout), "data.train.0.max_rows=40")
    seen, passes, before = [], [], weights_of(trainer)

    def noted(module, arguments, named):
        if module.training:
            seen.append(named["input_ids"] if "input_ids" in named else arguments[0])

    def third_is_nan(module, arguments, output):
        if not module.training:
            return output
        passes.append(1)
        return output * (math.nan if len(passes) == 3 else 1)

    trainer.backbone.register_forward_pre_hook(noted, with_kwargs=True)
    trainer.backbone.norm.register_forward_hook(third_is_nan)
    with pytest.raises(NotFinite) as error:
        trainer.train()
    text = trainer.processing_class.decode(seen[2].flatten())
    places = str(error.value).partition("its rows are ")[2].partition(". ")[0].partition(" and ")[0].split(", ")
    assert len(places) == (2 if layout == "padded" else 5)
    for file, _, line in (place.rpartition(":") for place in places):
        row = json.loads(Path(file).read_text().splitlines()[int(line) - 1])
        assert (row.get("messages") or row["prompt"])[0]["content"] in text
    for name, weight in weights_of(trainer).items():
        assert torch.equal(weight, before[name]), name


def test_an_estimate_that_is_not_finite(make_trainer):
    """KTO asks for it in evaluation mode, before the step: its NaN is that of all losses of the step."""
    trainer = make_trainer(Case("kto"))
    trainer.backbone.norm.register_forward_hook(lambda module, _, output: output * (1 if module.training else math.nan))
    trainer.remove_callback(ReferenceCheck)
    with pytest.raises(NotFinite, match="stopped in step 1 of 2, before it changed a weight: the loss is nan"):
        trainer.train()


def test_gradients_that_are_not_finite(make_trainer):
    """The loss is finite, one gradient is not: no weight changes by a bit."""
    trainer = make_trainer(Case())
    trainer.network.lm_head.weight.register_hook(lambda gradient: gradient * math.inf)
    before = weights_of(trainer)
    with pytest.raises(NotFinite, match=r"step 1 of 2, .* the gradients' norm is (nan|inf); the step's rows are"):
        trainer.train()
    for name, weight in weights_of(trainer).items():
        assert torch.equal(weight, before[name]), name


def test_such_weights_are_not_saved(make_trainer, tmp_path):
    trainer = make_trainer(Case())
    with torch.no_grad():
        trainer.network.model.layers[1].mlp.experts.gate_up_proj[3, 20, 1] = math.inf  # I = 16: of `up`
    with pytest.raises(NotFinite, match=r"nothing is saved: model\.layers\.1\.mlp\.experts\.3\.up_proj\.weight\."):
        trainer.save_model(str(tmp_path / "final"))
    assert not (tmp_path / "final").exists()


def test_a_start_with_such_weights_is_refused_by_name(make_trainer, tmp_path):
    trainer = make_trainer(Case())
    with torch.no_grad():
        trainer.network.model.layers[0].mlp.experts.down_proj[5, 0, 0] = math.nan
        trainer.network.model.norm.weight[0] = -math.inf
    trainer.network.save_pretrained(tmp_path / "spoilt")
    said = r"2 of its tensors hold NaN or infinity: model\.layers\.0\.mlp\.experts\.5\.down_proj\.weight, model\.norm"
    with pytest.raises(RecipeError, match=said):
        load_whole(str(tmp_path / "spoilt"))
    trainer.network.save_pretrained(tmp_path / "start")
    with pytest.raises(RecipeError, match=said):
        make_trainer(Case())


def test_json_is_valid():
    """NaN and infinity have no place in JSON: they are texts that `float` reads."""
    text = to_json({"loss": math.nan, "load": [0.5, -math.inf], "inside": {"x": math.inf}, "step": 3})

    def refuse(constant):
        raise AssertionError(constant)

    assert json.loads(text, parse_constant=refuse) == {
        "loss": "NaN",
        "load": [0.5, "-Infinity"],
        "inside": {"x": "Infinity"},
        "step": 3,
    }
    assert math.isnan(float(json.loads(text)["loss"]))
