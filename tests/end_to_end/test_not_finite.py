"""A run whose numbers are not finite any more ends on all its processes, and nothing of it passes for a result."""

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
from safetensors.torch import load_file
from support.launches import CONFIGS, LAUNCHER, SHORT, run_python

SMALL = ("training.packing=false", "training.per_device_train_batch_size=4", "data.train.0.max_rows=64")


def end_of(workspace: Path, shape: str, *overrides: str, program: Sequence[str] = ("-m", "olmoe_ft")) -> str:
    """What a launch that ends with exit code 1 has printed."""
    command = ["-m", LAUNCHER, "launch", "--config_file", CONFIGS[shape], "--main_process_port", "0", *program]
    result = run_python(workspace, *command, "train", "recipes/tiny/sft.yaml", *SHORT, *SMALL, *overrides)
    assert result.returncode == 1, result.stderr[-3000:]
    said = [line for line in result.stderr.splitlines() if line.startswith("training stopped")]
    assert len(said) == 1, "by one process; the launcher's report quotes it"
    return result.stderr


def test_a_loss_on_two_processes(workspace):
    """Step 1 moves every weight by 1e20. Its checkpoint stays, step 2 is not taken, and there is no final/."""
    options = ("training.learning_rate=1e20", "training.warmup_steps=0", "training.save_strategy=steps")
    said = end_of(workspace, "zero3", "name=spoilt", *options, "training.save_steps=1")
    run = workspace / "runs/spoilt"
    assert "training stopped in step 2 of 10, before it changed a weight: the loss is nan; its rows are" in said
    assert "The last checkpoint is runs/spoilt/checkpoints/checkpoint-1." in said
    saved = load_file(run / "checkpoints/checkpoint-1/model.safetensors")
    assert all(tensor.isfinite().all() for tensor in saved.values())
    assert not (run / "final").exists() and not (run / "summary.json").exists()

    def refuse(constant):
        raise AssertionError(f"{constant} is no JSON")

    records = [json.loads(line, parse_constant=refuse) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert records[-1] == {"step": 2, "loss": "NaN"}


ALONE = """
import math
import os
from olmoe_ft.ending import program
from olmoe_ft.model import OlmoeModel

start = OlmoeModel.__init__

def initialise(self, config):
    start(self, config)
    if os.environ["RANK"] == "1":
        self.norm.register_forward_hook(lambda module, arguments, output: output * (math.nan if module.training else 1))

OlmoeModel.__init__ = initialise
program()
"""


def test_a_loss_on_one_process_of_two_stops_both(workspace):
    """The other one's loss is finite; the rows that are named are those of the process with NaN, four of eight."""
    (workspace / "alone.py").write_text(ALONE)
    said = end_of(workspace, "zero2", "name=alone", program=["alone.py"])
    sentence = next(line for line in said.splitlines() if line.startswith("training stopped"))
    assert "stopped in step 1 of 10, before it changed a weight: the loss is nan" in sentence
    assert sentence.count("train.jsonl:") == 4 and not (workspace / "runs/alone").exists()


STEEP = """
import math
from olmoe_ft.ending import program
from olmoe_ft.model import OlmoeModel

start = OlmoeModel.__init__

def steep(module, arguments, output):
    if output.requires_grad:
        output.register_hook(lambda gradient: gradient * math.inf)

def initialise(self, config):
    start(self, config)
    self.norm.register_forward_hook(steep)

OlmoeModel.__init__ = initialise
program()
"""


@pytest.mark.parametrize("shape", ["zero2", "zero3"])
def test_gradients_under_deepspeed(workspace, shape):
    """The loss is finite, the gradients are not: DeepSpeed, which steps in the backward pass, leaves the step out."""
    (workspace / "steep.py").write_text(STEEP)
    said = end_of(workspace, shape, f"name=steep-{shape}", program=["steep.py"])
    assert "stopped in step 1 of 10, before it changed a weight: the gradients' norm is inf; the step's rows" in said
    assert not (workspace / f"runs/steep-{shape}/final").exists()
