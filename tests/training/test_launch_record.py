"""What `run.json` says of a launch: the words that started it, hardware without a computer's name, how it ended."""

import json
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
import torch
from support import REPOSITORY

from olmoe_ft.training.hardware import Energy, hardware
from olmoe_ft.training.launch_record import Ended, Launch
from olmoe_ft.training.run_directory import RunDirectory

PRINTS = "import json; from olmoe_ft.training.launch_record import typed_command; print(json.dumps(typed_command()))"
# a program with a launcher's name that starts the words behind it, as accelerate does for one process
STARTS = "import subprocess, sys; subprocess.run([sys.executable, *sys.argv[sys.argv.index('--') + 1 :]], check=True)"


@pytest.mark.parametrize(
    ("started", "typed"),
    [
        (["accelerate"], ["accelerate", "launch", "--config_file", "a.yaml", "--"]),
        (["torchrun"], ["torchrun", "launch", "--config_file", "a.yaml", "--"]),
    ],
)
def test_the_command_is_the_launchers(tmp_path, started, typed):
    """The words of the process above, from the launcher's name on: what a person typed, whatever the interpreter."""
    program = tmp_path / started[0]
    program.write_text(STARTS)
    (tmp_path / "child.py").write_text(PRINTS)
    words = [sys.executable, str(program), *typed[1:], str(tmp_path / "child.py"), "train", "tiny/sft", "name=a b"]
    result = subprocess.run(words, capture_output=True, text=True, cwd=REPOSITORY, check=True)
    assert json.loads(result.stdout) == [*typed, str(tmp_path / "child.py"), "train", "tiny/sft", "name=a b"]


def test_without_a_launcher_it_is_the_programs_own(tmp_path):
    program = tmp_path / "__main__.py"
    program.write_text(PRINTS)
    words = [sys.executable, str(program), "train", "tiny/sft"]
    result = subprocess.run(words, capture_output=True, text=True, cwd=REPOSITORY, check=True)
    assert json.loads(result.stdout) == ["olmoe-ft", "train", "tiny/sft"]


def test_hardware_says_what_this_computer_has():
    found = hardware(torch.device("cpu"))
    assert found["devices"] == ["cpu"] and found["device_memory_gib"] is None
    assert found["cores"] == len(psutil.Process().cpu_affinity())
    assert found["memory_gib"] == round(psutil.virtual_memory().total / 2**30, 1)
    assert found["cpu"]


def test_a_cpu_reports_no_energy():
    assert Energy(torch.device("cpu")).of_all() is None


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_counts_the_energy_of_its_work():
    """More than nothing, and less than 1,500 W would use: the products run for some seconds at most."""
    device = torch.device("cuda", 0)
    energy, matrix = Energy(device), torch.randn(4096, 4096, device=device)
    for _ in range(2000):
        matrix @ matrix
    torch.cuda.synchronize()
    joules = energy.of_all()
    assert joules is not None and 0 < joules < 1500 * 60


def test_the_end_is_added_to_the_newest_launch(recipe):
    run = RunDirectory(recipe())
    run.create()
    launches = [
        Launch(processes=1, device="cpu", resumed_from=resumed, data={}, precision={}, changed=[], accepted={})
        for resumed in (None, "checkpoint-3")
    ]
    run.record_launch(launches[0])
    run.record_launch(launches[1])
    run.record_end(Ended("failed", "the loss is nan", 4, 1.5, None))
    first, second = json.loads(Path(run.launches).read_text())["launches"]
    assert "ended" not in first
    assert second["ended"] == {
        "how": "failed",
        "reason": "the loss is nan",
        "step": 4,
        "seconds": 1.5,
        "energy_joules": None,
    }
