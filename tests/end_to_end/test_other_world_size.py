"""A run under DeepSpeed goes on with one process where it had two, and with two again, as if it had never stopped."""

import json
import shutil

import pytest
from safetensors.torch import load_file
from support.launches import CONFIGS, SFT_START, SHORT, Run, launch

from olmoe_ft.checkpoints.manifest import damage

# weight decay is for some of the parameters: a group more under DeepSpeed, whose options it mixes up
OPTIONS = (*SHORT, "training.max_steps=9", "training.save_strategy=steps", "training.save_steps=3")
OPTIONS += ("training.save_total_limit=null", "training.weight_decay=0.1", "training.warmup_steps=2")


@pytest.mark.parametrize(
    ("recipe", "shape"),
    [
        ("sft", "zero3"),
        pytest.param("sft", "zero2", marks=pytest.mark.slow),
        pytest.param("sft-lora", "zero3", marks=pytest.mark.slow),
        pytest.param("sft-lora", "zero2", marks=pytest.mark.slow),
    ],
)
def test_two_processes_one_and_two_again(workspace, recipe, shape):
    """With as many rows a step: one process takes two micro-batches. On a CPU not a bit differs; 1e-5 is asked for."""
    name = f"worlds-{recipe}-{shape}"
    file = workspace / f"{name}.yaml"
    file.write_text(json.dumps({"extends": f"recipes/tiny/{recipe}.yaml", "name": name} | SFT_START))
    launch(workspace, CONFIGS[shape], file.name, *OPTIONS)
    other = Run(workspace / "runs" / name, "")
    whole = Run(other.path.rename(other.path.with_name(f"{name}-whole")), "")
    shutil.copytree(whole.path, other.path)
    for step, processes in ((3, 1), (6, 2)):
        for place in (other.path / "summary.json", other.final, *later(other, step)):
            shutil.rmtree(place) if place.is_dir() else place.unlink()
        accumulation = f"training.gradient_accumulation_steps={2 // processes}"
        said = launch(
            workspace, CONFIGS[shape], file.name, *OPTIONS, accumulation, "--accept", "processes", processes=processes
        )
        assert f"the shards of {3 - processes} process(es) are joined and split for {processes};" in said
        assert damage(other.path / f"checkpoints/checkpoint-{step}") is None
    assert {folder.name for folder in (other.path / "checkpoints").iterdir()} >= {"checkpoint-3", "checkpoint-9"}
    assert not [*other.path.rglob("universal*")]
    assert [record["step"] for record in other.records] == list(range(1, 10))
    for expected, actual in zip(whole.records, other.records, strict=True):
        assert actual["learning_rate"] == expected["learning_rate"]
        for metric in ("loss", "loss/task", "router/loss", "grad_norm"):
            assert actual[metric] == pytest.approx(expected[metric], rel=1e-5), (expected["step"], metric)
    weights = "adapter_model.safetensors" if "lora" in recipe else "model.safetensors"
    trained, start = load_file(other.final / weights), load_file(whole.path / f"checkpoints/checkpoint-3/{weights}")
    for key, expected_weight in load_file(whole.final / weights).items():
        far = (expected_weight - start[key]).abs().max()
        assert (trained[key] - expected_weight).abs().max() <= 1e-3 * far, key


def later(run: Run, step: int) -> list:
    return [run.path / f"checkpoints/checkpoint-{after}" for after in range(step + 3, 10, 3)]
