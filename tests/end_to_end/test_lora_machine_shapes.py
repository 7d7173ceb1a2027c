"""Adapters on two processes under ZeRO, with every kind of checkpointing: as on one process without it."""

import json

import peft
import pytest
import torch
import transformers
from safetensors.torch import load_file
from support.launches import CONFIGS, SFT_START, SHORT, Run, launch

STEPS = 4
CHECKPOINTING = {
    "none": {"gradient_checkpointing": False},
    "reentrant": {"gradient_checkpointing": True, "gradient_checkpointing_kwargs": {"use_reentrant": True}},
    "non_reentrant": {"gradient_checkpointing": True, "gradient_checkpointing_kwargs": {"use_reentrant": False}},
}
CASES = [  # stage, checkpointing, router.train: each router policy has its turn
    ("sft", "none", "lora"),
    ("sft", "reentrant", "full"),
    ("sft", "non_reentrant", "frozen"),
    ("dpo", "none", "full"),
    ("dpo", "reentrant", "lora"),
    ("dpo", "non_reentrant", "frozen"),
]
EVERY = pytest.mark.parametrize("case", CASES, ids="-".join)
ZERO2 = pytest.param("zero2", marks=pytest.mark.slow)  # test_machine_shapes.py has SFT and DPO with adapters there


@pytest.fixture(scope="module")
def lora_run(workspace):
    """`lora_run("zero3", case)`; all cases of a shape are one pipeline. One process checkpoints nothing.

    On the two processes DPO reads reference log-probabilities that were computed before.
    """
    made: set[str] = set()

    def run(shape: str, case: tuple[str, str, str]) -> Run:
        name = f"lora-{shape}"
        if shape not in made:
            made.add(shape)
            stages = []
            for stage, checkpointing, router in CASES:
                training = CHECKPOINTING["none" if shape == "one" else checkpointing] | {"max_steps": STEPS}
                if stage == "dpo":
                    alone = {"loss_type": ["sigmoid"], "loss_weights": None}  # DPO alone starts at ln 2
                    training |= alone | {"precompute_ref_log_probs": shape != "one"}
                sections = {**SFT_START, "router": {"train": router}, "training": training}
                stages.append({"extends": f"recipes/tiny/{stage}-lora.yaml", **sections})
            file = workspace / f"{name}.yaml"
            file.write_text(json.dumps({"name": name, "stage": "pipeline", "stages": stages}))
            accumulation = ["training.gradient_accumulation_steps=2"] if shape == "one" else []
            overrides = [override for override in SHORT if "max_steps" not in override]
            launch(workspace, CONFIGS[shape], file.name, *overrides, *accumulation)
        number = [other for other in CASES if other[0] == case[0]].index(case) + 1
        return Run(workspace / "runs" / name / (case[0] if number == 1 else f"{case[0]}-{number}"), "")

    return run


@EVERY
@pytest.mark.parametrize("shape", [ZERO2, "zero3"])
def test_losses_of_every_step_equal_one_process_without_checkpointing(lora_run, shape, case):
    one, other = lora_run("one", case).records, lora_run(shape, case).records
    assert [record["step"] for record in other] == list(range(1, STEPS + 1))
    for expected, actual in zip(one, other, strict=True):
        for name in ("loss", "loss/task", "router/loss", "router/load_balancing_loss", "router/z_loss", "grad_norm"):
            assert actual[name] == pytest.approx(expected[name], rel=1e-4), (expected["step"], name)
    if case[0] == "dpo":
        assert one[0]["loss/task"] == pytest.approx(0.693147, abs=1e-6)
        assert abs(one[0]["rewards/margins"]) < 1e-6 and abs(other[0]["rewards/margins"]) < 1e-5


@EVERY
@pytest.mark.parametrize("shape", ["one", ZERO2, "zero3"])
def test_the_saved_adapter_is_whole_and_has_moved(lora_run, shape, case):
    """4 layers of 4 attention weights and 2 stacks, two factors each; the routers by their policy.

    Every B began at 0. PEFT draws A uniformly within 1 / sqrt(in): among the 16 x 16 x in numbers of a stack's A some
    begin so near the bound that four steps take them beyond it.

    The guards of the run itself have asked for a gradient of every factor, and of the router losses in every layer,
    and that no bit of the base has changed.
    """
    final = lora_run(shape, case).final
    tensors = load_file(final / "adapter_model.safetensors")
    of_routers = [name for name in tensors if "mlp.gate" in name]
    assert len(of_routers) == {"frozen": 0, "lora": 8, "full": 4}[case[2]]
    assert len(tensors) - len(of_routers) == 4 * 6 * 2
    for name, tensor in tensors.items():
        began_within = tensor.shape[-1] ** -0.5 * (1 + 1e-6) if "mlp.experts" in name and "lora_A" in name else 0
        assert tensor.abs().max() > began_within, name
    base = transformers.AutoModelForCausalLM.from_pretrained(
        peft.PeftConfig.from_pretrained(final).base_model_name_or_path
    )
    gates = {name: weight.clone() for name, weight in base.named_parameters() if "mlp.gate" in name}
    model = peft.PeftModel.from_pretrained(base, final)
    ids = torch.arange(3, 60)[None]
    with torch.no_grad():
        actual = model(input_ids=ids).logits
        with model.disable_adapter():
            assert (actual - model(input_ids=ids).logits).abs().max() > 1e-3
    model.merge_and_unload()
    moved = [not torch.equal(weight, gates[name]) for name, weight in base.named_parameters() if name in gates]
    assert moved == [case[2] != "frozen"] * 4


@EVERY
@pytest.mark.parametrize("shape", [ZERO2, "zero3"])
def test_the_adapters_are_those_of_one_process(lora_run, shape, case):
    """Adam's first steps are the sign of the gradient, so a factor whose gradient is rounding may differ whole steps;
    what the adapter does to the logits may not."""
    ids = torch.arange(3, 60)[None]
    logits = []
    for kind in ("one", shape):
        final = lora_run(kind, case).final
        base = transformers.AutoModelForCausalLM.from_pretrained(
            peft.PeftConfig.from_pretrained(final).base_model_name_or_path
        )
        with torch.no_grad():
            logits.append(peft.PeftModel.from_pretrained(base, final)(input_ids=ids).logits)
    torch.testing.assert_close(logits[1], logits[0], rtol=0, atol=1e-3)
