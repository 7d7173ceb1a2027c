"""The pages of real runs, as a person opens them: SFT, DPO, LoRA, a pipeline, one that failed, one that was killed."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from support.browser import check_page
from support.launches import ENVIRONMENT, make_workspace, olmoe_ft, run_python

SHORT = (
    "training.max_steps=8",
    "training.per_device_train_batch_size=8",
    "training.logging_steps=1",
    "data.train.0.max_rows=400",
    "evaluation.limit=20",
    "tracking.wandb='off'",
)
SFT = ("recipes/tiny/sft.yaml", *SHORT, "evaluation.every_steps=4")


@pytest.fixture(scope="module")
def workspace(tmp_path_factory) -> Path:
    """The runs of this file's tests, each of a few steps; `killed` has trained some when it gets no time to say so."""
    folder = make_workspace(tmp_path_factory.mktemp("pages"))
    trained = [
        ("sft", *SFT),
        ("dpo", "recipes/tiny/dpo.yaml", *SHORT, "model.path=runs/sft"),
        ("lora", "recipes/tiny/sft-lora.yaml", *SHORT, "model.path=runs/sft"),
        ("both", "recipes/tiny/pipeline.yaml", *(f"stages.{index}.{one}" for index in (0, 1) for one in SHORT)),
    ]
    for name, recipe, *overrides in trained:
        result = olmoe_ft(folder, "train", recipe, f"name={name}", *overrides)
        assert result.returncode == 0, result.stderr[-3000:]
        assert f"runs/{name}/" in result.stdout and "report.html" in result.stdout
    failing = ("training.learning_rate=1e20", "training.warmup_steps=0", "training.packing=false")
    assert olmoe_ft(folder, "train", *SFT, "name=failed", *failing).returncode == 1
    _kill(folder)
    return folder


def _kill(folder: Path) -> None:
    words = [sys.executable, "-m", "olmoe_ft", "train", *SFT, "name=killed", "training.max_steps=2000"]
    process = subprocess.Popen(words, cwd=folder, env=ENVIRONMENT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    metrics, end = folder / "runs/killed/metrics.jsonl", time.monotonic() + 120
    while not metrics.exists() or len(metrics.read_text().splitlines()) < 6:
        assert process.poll() is None and time.monotonic() < end
        time.sleep(0.1)
    live = olmoe_ft(folder, "report", "runs/killed")  # while it trains
    assert live.returncode == 0 and "training" in (folder / "runs/killed/report.html").read_text()
    os.kill(process.pid, signal.SIGKILL)
    process.wait()


@pytest.mark.parametrize("run", ["sft", "dpo", "lora", "both", "failed", "killed"])
def test_a_page_is_right_in_a_browser(workspace, run):
    """At three widths in both schemes: no error, no request, every chart drawn, no rule of axe-core broken."""
    if run == "killed":
        assert olmoe_ft(workspace, "report", "runs/killed").returncode == 0
    check_page(workspace / f"runs/{run}/report.html")


def test_a_launch_says_how_it_ended(workspace):
    def ended(run: str) -> dict | None:
        (launch,) = json.loads((workspace / f"runs/{run}/run.json").read_text())["launches"]
        return launch.get("ended")

    finished = ended("sft")
    assert finished is not None and (finished["how"], finished["step"], finished["reason"]) == ("finished", 8, None)
    assert finished["seconds"] > 0 and finished["energy_joules"] is None, "a CPU reports none"
    failed = ended("failed")
    assert failed is not None and (failed["how"], failed["step"]) == ("failed", 1)
    assert failed["reason"].startswith("training stopped in step 2 of 8, before it changed a weight: the loss is nan")
    assert ended("killed") is None


def test_the_plan_lies_beside_the_run(workspace):
    """Eight steps were asked for, and 8 x 128 tokens fit into a step of 8 packs; these are 86% full."""
    plan = json.loads((workspace / "runs/sft/plan.json").read_text())
    assert plan["steps"] == 8 and plan["processes"] == 1 and not plan["gpu"]
    assert plan["micro_batch"] == {"rows": 8, "tokens": 128, "packed": True}
    assert 0.8 * 8 * 128 < plan["tokens_per_step"] <= 8 * 128
    assert plan["memory"]["peak"] > plan["memory"]["weights"] > 0 and "seconds_per_step" not in plan


def test_a_page_that_cannot_be_written_ends_no_run(workspace):
    """A folder lies where the page goes, and cannot be moved away since its parent is what a run writes into."""
    broken = "import olmoe_ft.report.of_run as of_run\ndef no(folder): raise OSError(28, 'No space left on device')\n"
    program = broken + "of_run.write_report = no\nfrom olmoe_ft.ending import program\nprogram()\n"
    (workspace / "no_page.py").write_text(program)
    result = run_python(workspace, "no_page.py", "train", *SFT, "name=without", "data.answers=null")
    assert result.returncode == 0, result.stderr[-2000:]
    assert "check: its page could not be written: [Errno 28] No space left on device" in result.stdout
    assert (workspace / "runs/without/summary.json").exists()
