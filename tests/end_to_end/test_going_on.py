"""What a second launch of a run does: nothing where it has finished; more steps; other rows by name; a fresh start."""

import json
import shutil
from pathlib import Path

import pytest
from support.launches import SFT_START, SHORT, launch, make_workspace, olmoe_ft

SFT = [
    *SHORT,
    "training.max_steps=2",
    "training.save_strategy=steps",
    "training.save_steps=1",
    "training.save_total_limit=null",
]


@pytest.fixture(scope="module")
def workspace(tmp_path_factory) -> Path:
    """With rows of its own, and a finished run of two steps."""
    folder = make_workspace(tmp_path_factory.mktemp("going_on"))
    rows = (folder / "data/skills/train.jsonl").read_text().splitlines()[:300]
    (folder / "rows.jsonl").write_text("\n".join(rows) + "\n")
    start = {"extends": "recipes/tiny/sft.yaml", "name": "run", **SFT_START}
    (folder / "run.yaml").write_text(json.dumps({**start, "data": {"train": [{"path": "rows.jsonl"}]}}))
    result = train(folder)
    assert result.returncode == 0, result.stderr
    return folder


def train(workspace: Path, *arguments: str, name: str = "run"):
    overrides = [override for override in SFT if not override.startswith("data.train")]
    return olmoe_ft(workspace, "train", "run.yaml", *overrides, f"name={name}", *arguments)


def copy(workspace: Path, name: str) -> Path:
    """The finished run under another name."""
    run = workspace / "runs" / name
    shutil.copytree(workspace / "runs/run", run)
    recipe = run / "recipe.yaml"
    recipe.write_text(recipe.read_text().replace("name: run", f"name: {name}"))
    (run / "manifest.json").unlink()  # its recipe is another, so it has not finished; its checkpoints are whole
    return run


def test_a_finished_run_says_so_and_can_go_on_to_more_steps(workspace):
    card = workspace / "runs/run/final/README.md"
    card.unlink()  # as if it had been killed when it had just finished
    again = train(workspace, "training.logging_steps=2")
    assert again.returncode == 0 and "had finished before" in again.stdout and card.exists()
    longer = train(workspace, "training.max_steps=3", "training.logging_steps=2")
    assert longer.returncode == 0 and "continuing from runs/run/checkpoints/checkpoint-2" in longer.stdout
    assert (
        "its steps so far had the learning rates of a run of 2 steps; from here on they are those of 3" in longer.stdout
    )
    run = workspace / "runs/run"
    assert json.loads((run / "summary.json").read_text())["steps"] == 3
    assert json.loads((run / "summary.json.of-2-steps").read_text())["steps"] == 2
    assert (run / "final.of-2-steps/model.safetensors").exists()
    last = json.loads((run / "run.json").read_text())["launches"][-1]
    assert last["resumed_from"] == "checkpoint-2"
    assert last["changed"] == ["training.logging_steps", "training.max_steps"]
    assert "whole" in olmoe_ft(workspace, "verify", "runs/run").stdout


def test_other_rows_are_refused_by_name_and_accepted_by_name(workspace):
    run = copy(workspace, "rows")
    for later in ("checkpoint-2", "checkpoint-3"):
        shutil.rmtree(run / "checkpoints" / later, ignore_errors=True)
    rows = workspace / "rows.jsonl"
    before = rows.read_text()
    rows.write_text("\n".join(before.splitlines()[5:]) + "\n")
    try:
        refused = train(workspace, name="rows")
        assert refused.returncode == 2
        assert "other training rows (300 before, 295 now) (--accept data)" in refused.stderr
        assert not (run / "checkpoints/.unfinished").exists()
        accepted = train(workspace, "--accept", "data", name="rows")
        assert accepted.returncode == 0, accepted.stderr
        assert list(json.loads((run / "run.json").read_text())["launches"][-1]["accepted"]) == ["data"]
    finally:
        rows.write_text(before)


def test_a_fresh_start_keeps_the_run_of_all_ranks_aside(workspace):
    copy(workspace, "fresh")
    overrides = [override for override in SFT if not override.startswith("data.train")]
    output = launch(workspace, "configs/accelerate/zero2.yaml", "run.yaml", *overrides, "name=fresh", "--fresh")
    assert "runs/fresh/ is kept as fresh.before/" in output
    assert (workspace / "runs/fresh.before/final").exists() and (workspace / "runs/fresh/final").exists()
    assert "continuing from" not in output
