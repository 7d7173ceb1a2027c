"""Runs that are asked to stop, whose launcher or one of whose ranks ends or hangs; see docs/signals.md."""

import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from safetensors.torch import load_file
from support import SUPPORT
from support.launches import CONFIGS, ENVIRONMENT, SHORT, make_workspace, olmoe_ft
from support.launches import launch as launch_to_its_end

STEPS = 8
RUN = ["train", "recipes/tiny/sft.yaml", *SHORT, f"training.max_steps={STEPS}", "data.train.0.max_rows=300"]
ONE = [sys.executable, "-m", "olmoe_ft", *RUN]
LAUNCHER = ["accelerate", "launch", "--config_file", CONFIGS["zero3"], "--main_process_port", "0"]
ZERO3 = [*LAUNCHER, "-m", "olmoe_ft", *RUN]
LATE = 240  # seconds for what takes two, on a machine that does much else


class Launch:
    """A command that runs, and what it has printed."""

    def __init__(self, workspace: Path, name: str, command: list[str], **environment: str) -> None:
        self.run = workspace / "runs" / name
        self.log = workspace / f"{name}.log"
        self.process = subprocess.Popen(
            [*command, f"name={name}"],
            cwd=workspace,
            env=ENVIRONMENT | environment,
            stdout=self.log.open("w"),
            stderr=subprocess.STDOUT,
        )

    @property
    def output(self) -> str:
        return self.log.read_text()

    def ranks(self) -> list[psutil.Process]:
        processes = psutil.Process(self.process.pid).children()  # a rank's own have its command line for an instant
        return sorted((rank for rank in processes if _rank(rank)), key=_rank)

    def trains(self, steps: int = 1) -> None:
        """Wait until it has trained that many steps in all."""
        _wait(lambda: self.steps() >= steps, self)

    def steps(self) -> int:
        metrics = self.run / "metrics.jsonl"
        return metrics.read_text().count('"loss"') if metrics.exists() else 0

    def ends(self) -> int:
        return self.process.wait(LATE)


def _rank(process: psutil.Process) -> str:
    try:
        return process.environ().get("RANK", "") if "train" in process.cmdline() else ""
    except psutil.Error:
        return ""


def _wait(until: Callable[[], bool], launch: Launch) -> None:
    end = time.monotonic() + LATE
    while not until():
        assert time.monotonic() < end and launch.process.poll() is None, launch.output[-3000:]
        time.sleep(0.1)


@pytest.fixture(scope="module")
def workspace(tmp_path_factory) -> Path:
    return make_workspace(tmp_path_factory.mktemp("signals"))


def test_one_process_is_saved_and_goes_on_to_the_same_weights(workspace):
    launch = Launch(workspace, "one", ONE)
    launch.trains(3)
    launch.process.send_signal(signal.SIGUSR1)
    assert launch.ends() == 75, launch.output
    step = launch.steps()
    assert launch.output.splitlines()[-1] == (
        f"stopped by SIGUSR1 in step {step} of {STEPS}; runs/one/checkpoints/checkpoint-{step} is complete; "
        "the same command continues from there"
    )
    assert not (launch.run / "summary.json").exists() and not (launch.run / "final").exists()
    assert Launch(workspace, "one", ONE).ends() == 0
    assert olmoe_ft(workspace, *RUN, "name=unbroken").returncode == 0
    _assert_equal(launch.run, workspace / "runs/unbroken")


def _assert_equal(*runs: Path) -> None:
    weights, same = (load_file(run / "final/model.safetensors") for run in runs)
    assert weights.keys() == same.keys()
    assert [name for name, weight in weights.items() if not weight.equal(same[name])] == []


def test_ranks_are_saved_together_whether_the_launcher_passes_it_on_or_dies(workspace):
    """And go on to the weights of a run that was never stopped. With the Makefile's environment, USR1 too."""
    launch = Launch(workspace, "ranks", ZERO3, PET_SIGNALS_TO_HANDLE="SIGTERM,SIGUSR1")
    launch.trains(2)
    launch.process.send_signal(signal.SIGUSR1)
    assert launch.ends() == 1  # the launcher's own
    assert f"stopped by SIGUSR1 in step {launch.steps()} of {STEPS}" in launch.output

    launch = Launch(workspace, "ranks", ZERO3)
    launch.trains(5)
    ranks = launch.ranks()
    launch.process.kill()
    assert len(ranks) == 2 and psutil.wait_procs(ranks, LATE)[1] == []
    assert f"stopped by the end of its launcher in step {launch.steps()} of {STEPS}" in launch.output
    assert not (launch.run / "final").exists()

    launch = Launch(workspace, "ranks", ZERO3)
    assert launch.ends() == 0, launch.output
    launch_to_its_end(workspace, CONFIGS["zero3"], *RUN[1:], "name=whole")
    _assert_equal(launch.run, workspace / "runs/whole")


@pytest.mark.parametrize("asked", [pytest.param(False, marks=pytest.mark.slow), True])
def test_a_rank_that_was_killed_ends_the_launch_and_is_named_last(workspace, asked):
    """Also when the other rank, which waits for it, was asked to stop, and so is to save at the end of its step.

    And when the launcher, which is stopped for two seconds here, looks later than the other rank has failed.
    """
    launch = Launch(workspace, f"killed-{asked}", ZERO3, TORCH_ELASTIC_SHUTDOWN_TIMEOUT="600")
    launch.trains()
    first, second = launch.ranks()
    if asked:
        second.send_signal(signal.SIGSTOP)
        first.send_signal(signal.SIGTERM)
        time.sleep(1)
    launch.process.send_signal(signal.SIGSTOP)
    second.kill()
    time.sleep(2)
    launch.process.send_signal(signal.SIGCONT)
    assert launch.ends() == 1
    assert "SIGKILL" in launch.output.splitlines()[-2], launch.output[-3000:]
    assert "continues from there" not in launch.output and not (launch.run / "final").exists()


@pytest.mark.slow
@pytest.mark.parametrize("stopped", [True, False])
def test_a_rank_that_hangs_is_named_and_ends_the_launch(workspace, stopped):
    """By SIGSTOP, which it cannot answer, or in a sleep that does not end."""
    program = ["-m", "olmoe_ft"] if stopped else [str(SUPPORT / "failing_train.py"), "hangs", "1"]
    launch = Launch(
        workspace,
        f"hangs-{stopped}",
        [*LAUNCHER, *program, *RUN, "training.ddp_timeout=8"],
        TORCH_ELASTIC_SHUTDOWN_TIMEOUT="600",
    )
    _wait(lambda: len(launch.ranks()) == 2 and (not stopped or launch.steps() > 0), launch)
    first, second = launch.ranks()
    if stopped:
        second.send_signal(signal.SIGSTOP)
    assert launch.ends() == 1
    sentence = f"rank 1 ({psutil.os.uname().nodename}, process {second.pid}) has not moved for 8 s"
    assert sentence in launch.output and (stopped or "failing_train.py:" in launch.output)
    assert sentence in launch.output.splitlines()[-2], launch.output[-3000:]
    assert not first.is_running() and not second.is_running()
