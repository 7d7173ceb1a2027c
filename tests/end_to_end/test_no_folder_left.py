"""A run that ends before its first step: what it leaves behind, and what stands last on the terminal."""

import json
from pathlib import Path

import pytest
from support import SUPPORT
from support.launches import LAUNCHER, SHORT, make_workspace, run_python

FAILS = str(SUPPORT / "failing_train.py")
SFT = ["train", "recipes/tiny/sft.yaml", *SHORT, "training.max_steps=1", "data.train.0.max_rows=32", "name=left"]


@pytest.fixture
def workspace(tmp_path) -> Path:
    return make_workspace(tmp_path)


def test_a_refused_option_is_the_last_line_and_leaves_the_plan_alone(workspace):
    report = workspace / "runs/left/data_report.json"
    report.parent.mkdir(parents=True)
    report.write_text("{}")
    done = run_python(workspace, FAILS, "option", "0", *SFT, "tracking.wandb=offline")
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1] == "training cannot start: optimizer got an empty parameter list"
    assert "Traceback" not in done.stderr and "leaked" not in done.stderr
    assert [file for file in (workspace / "runs").rglob("*") if file.is_file()] == [report]


def test_a_crash_ends_with_its_traceback_and_leaves_nothing(workspace):
    done = run_python(workspace, FAILS, "crash", "0", *SFT, "name=of/sft", "tracking.wandb=offline")
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == "KeyError: 'a fault of the program'"
    assert not (workspace / "runs").exists()


def test_after_a_kill_the_repaired_recipe_of_the_same_name_starts(workspace):
    """Then it has trained a step, and is protected. The terminal of both has no Cyrillic letters."""
    turns = [{"role": "user", "content": "Повтори: а б"}, {"role": "assistant", "content": "а б"}]
    (workspace / "ряды.jsonl").write_text(json.dumps({"messages": turns, "ключ": 1}, ensure_ascii=False) + "\n")
    rows = ["data.train=[{path: ряды.jsonl}]", "training.packing=false"]
    killed = run_python(workspace, FAILS, "killed", "0", *SFT, *rows)
    left = workspace / "runs/left"
    assert killed.returncode == -9 and (left / "base").exists()
    (left / "from_the_killed_launch").touch()

    repaired = [*SFT, *rows, "training.learning_rate=1e-4"]
    done = run_python(workspace, "-m", "olmoe_ft", *repaired, PYTHONIOENCODING="latin-1", real=True)
    assert done.returncode == 0, done.stderr
    assert "???????: ? ?" in done.stdout
    assert (left / "final").exists() and not (left / "from_the_killed_launch").exists()
    assert not (left / "UNTRAINED").exists()
    other = run_python(workspace, "-m", "olmoe_ft", *SFT, *rows)
    assert other.returncode == 2 and "it differs in training.learning_rate" in other.stderr


def test_what_one_process_of_two_finds_is_said_once_and_leaves_nothing(workspace):
    """Process 1 fails, while process 0, which made the folder, waits for it in C++; the launcher then stops it."""
    launch = ["-m", LAUNCHER, "launch", "--config_file", "configs/accelerate/zero2.yaml"]
    done = run_python(workspace, *launch, "--main_process_port", "0", FAILS, "mistake", "1", *SFT)
    assert done.returncode == 1  # the launcher's own, whatever the processes return
    lines = done.stderr.splitlines()
    assert lines.count("found by one process alone") == 1
    assert "traceback : found by one process alone" in lines[-2]  # and in the launcher's report, below which is a line
    assert "olmoe_ft/" not in done.stderr.partition("found by one process alone")[2]  # no traceback of process 0
    assert not (workspace / "runs").exists()
    assert "forcefully exiting" not in done.stderr
