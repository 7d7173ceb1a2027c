"""A handful of `make torture`: kills and damages, on one process and under ZeRO-3, with LoRA."""

import os
import subprocess
import sys

import pytest
from support import REPOSITORY
from support.launches import ENVIRONMENT

PATHS = {"PYTHONPATH": os.pathsep.join(map(str, (REPOSITORY, REPOSITORY / "benchmarks")))}


@pytest.mark.slow  # quick ones of the same: test_command_line's killed run, test_saving, test_recovery
def test_killed_and_damaged_runs_end_as_if_nothing_had_happened():
    """Seeded: two kills and four damages of each of two configurations."""
    command = ["-m", "torture.run", "--only", "sft lora one packing, sft lora zero3 packing"]
    done = subprocess.run(
        [sys.executable, *command, "--kills", "4", "--damages", "8", "--seed", "1"],
        env=ENVIRONMENT | PATHS,
        capture_output=True,
        text=True,
        timeout=400,
    )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-3000:]
    assert "kills" in done.stdout and "lost:" not in done.stdout
