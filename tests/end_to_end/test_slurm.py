"""The jobs of configs/slurm with stand-ins for SLURM's commands: what a signal does, and when a job is put back."""

import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from support import REPOSITORY
from support.launches import ENVIRONMENT, SHORT, make_workspace, olmoe_ft

from olmoe_ft.planning.job import Needs
from olmoe_ft.planning.machine import read_machine
from olmoe_ft.recipe import load_recipe
from olmoe_ft.slurm import job_file

RUN = "runs/olmoe-1b-7b-0924-sft-full"
# on two "computers" that are this one: every task gets its number, and the signals that srun gets
SRUN = r"""#!/bin/bash
while [[ $1 == --* ]]; do shift; done
trap 'kill -USR1 $(jobs -p)' USR1
for ((SLURM_NODEID = 0; SLURM_NODEID < SLURM_NNODES; SLURM_NODEID++)); do
  SLURM_NODEID=$SLURM_NODEID "$@" &
done
while [[ $(jobs -rp) ]]; do wait -n && code=0 || code=$?; done
exit "$code"
"""
SCONTROL = """#!/bin/bash
[[ $1 == requeue ]] || exec printf '%s\\n' 127.0.0.1 127.0.0.2
echo "$@" >> asked-of-slurm
exit "${REFUSES:-0}"
"""
# in the place of the launcher, or of a process that it starts
TRAINING = f"""
import os, pathlib, signal, sys, time
run, rank = pathlib.Path("{RUN}"), os.environ.get("RANK", "0")
def save(*ignored):
    pathlib.Path(f"heard-{{rank}}").open("a").write("USR1 ")
    if "saves" in how and rank == "0": (run / "checkpoints/checkpoint-20").mkdir()
    if "finishes" in how: (run / "summary.json").touch()
    if "again" in how:
        os.kill(os.getppid(), signal.SIGTERM)
        time.sleep(0.3)
    sys.exit(75)
how = os.environ["HOW"].split()
signal.signal(signal.SIGUSR1, save)
if "ends" in how: sys.exit(int(how[-1]))
(run / f"started-{{rank}}").touch()
while True: signal.pause()
"""


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder in which a job stops after its first checkpoint, and finds SLURM's commands and a launcher."""
    (tmp_path / RUN / "checkpoints/checkpoint-10").mkdir(parents=True)
    programs = tmp_path / ".venv/bin"
    programs.mkdir(parents=True)
    for name, text in {"srun": SRUN, "scontrol": SCONTROL, "accelerate": f"#!{sys.executable}{TRAINING}"}.items():
        (programs / name).write_text(text)
        (programs / name).chmod(0o755)
    return tmp_path


def until(done: Callable[[], bool], job: subprocess.Popen[str]) -> None:
    while not done():
        assert job.poll() is None, job.communicate()[0]
        time.sleep(0.02)


def run_job(place: Path, name: str, how: str, *signals: int, processes: int = 1, **more: str) -> tuple[int, str]:
    """Exit code and output of a job that gets these signals, as SLURM sends them: to its shell alone."""
    slurm = {"SLURM_JOB_ID": "4711", "SLURM_JOB_NODELIST": "n[1-2]", "SLURM_NNODES": "2", "SLURM_GPUS_ON_NODE": "1"}
    job = subprocess.Popen(
        ["bash", REPOSITORY / "configs/slurm" / f"{name}.sbatch"],
        cwd=place,
        env={**ENVIRONMENT, **slurm, "SLURM_CPUS_PER_TASK": "1", "HOW": how, **more},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        for number in signals:
            until(lambda: len([*(place / RUN).glob("started-*")]) == processes, job)
            job.send_signal(number)
        return job.wait(120), job.communicate()[0]
    finally:
        job.kill()


def says(place: Path, file: str) -> str:
    return (place / file).read_text() if (place / file).exists() else ""


@pytest.mark.parametrize(
    ("how", "signals", "code", "back"),
    [
        ("ends 0", (), 0, False),
        ("ends 2", (), 2, False),
        ("ends 1", (), 1, False),
        ("saves", (signal.SIGUSR1,), 75, True),
        ("no checkpoint", (signal.SIGUSR1,), 75, False),
        ("saves finishes", (signal.SIGUSR1,), 0, False),
        ("saves", (signal.SIGTERM,), 75, False),  # `scancel`; where SLURM needs the computers, it puts it back itself
    ],
)
def test_a_job_is_put_back_only_where_a_signal_stopped_it_with_a_new_checkpoint(place, how, signals, code, back):
    ended, output = run_job(place, "one_node", how, *signals)
    assert ended == code, output
    assert says(place, "asked-of-slurm") == ("requeue 4711\n" if back else "")
    assert says(place, "heard-0") == "USR1 " * len(signals)
    assert ("Raise --time" in output) == ("no checkpoint" in how)


def test_a_run_gets_the_first_signal_alone(place):
    """By a second it would end at once, and SLURM sends one more when the time is over."""
    ended, output = run_job(place, "one_node", "saves again", signal.SIGUSR1)
    assert ended == 75, output
    assert says(place, "heard-0") == "USR1 " and says(place, "asked-of-slurm") == "requeue 4711\n"


def test_a_job_that_slurm_does_not_take_back_says_so(place):
    ended, output = run_job(place, "one_node", "saves", signal.SIGUSR1, REFUSES="1")
    assert ended == 75 and "Submit it again" in output


@pytest.mark.parametrize("name", ["one_node", "nodes"])
def test_a_signal_comes_through_accelerate_to_the_processes_of_all_computers(place, name):
    """With the real launcher, one on each of two computers or one for two processes."""
    (place / ".venv/bin/accelerate").unlink()
    (place / "olmoe_ft").mkdir()
    (place / "olmoe_ft/__init__.py").touch()
    (place / "olmoe_ft/__main__.py").write_text(TRAINING)
    for file in ("zero2", "multinode"):  # without DeepSpeed, whose import takes long
        shape = place / f"configs/accelerate/{file}.yaml"
        shape.parent.mkdir(parents=True, exist_ok=True)
        shape.write_text("distributed_type: MULTI_GPU\nnum_machines: 1\nnum_processes: 2\n")
    per_node = {"SLURM_GPUS_ON_NODE": "2"} if name == "one_node" else {}
    own = {"PYTHONPATH": str(place), **per_node}
    ended, output = run_job(place, name, "saves", signal.SIGUSR1, processes=2, **own)
    assert ended == 75, output
    assert [says(place, f"heard-{rank}") for rank in (0, 1)] == ["USR1 ", "USR1 "]
    assert says(place, "asked-of-slurm") == "requeue 4711\n"


def test_a_dry_run_prints_a_job_and_writes_nothing(tmp_path):
    place = make_workspace(tmp_path)
    before = sorted(tmp_path.iterdir())
    short = "data.train.0.max_rows=64"
    shown = olmoe_ft(place, "launch", "--slurm", "--dry-run", "tiny/sft", short, "--sbatch", "qos=low")
    assert shown.returncode == 0, shown.stderr
    assert shown.stdout.startswith("#!/bin/bash\n") and "#SBATCH --qos=low\n" in shown.stdout
    assert f"\nOVERRIDES=({short})\n" in shown.stdout and sorted(tmp_path.iterdir()) == before


@pytest.mark.slow
def test_a_stopped_run_goes_on_in_the_next_job_and_finishes(place):
    """With the real command, on one process."""
    make_workspace(place)
    shutil.rmtree(place / "runs")
    short = [value for value in SHORT if "max_steps" not in value]  # nothing is saved but by the signal
    overrides = [*short, "training.max_steps=60", "data.train.0.max_rows=200", "training.per_device_train_batch_size=4"]
    recipe, needs = load_recipe("tiny/sft", overrides), Needs(60, None, 0, 0, 0, 0)
    cpu = "configs/accelerate/cpu.yaml"
    (place / "job").write_text(job_file(recipe, ["tiny/sft", *overrides], cpu, read_machine(cpu), needs))
    run, environment = place / "runs/tiny-sft", {**ENVIRONMENT, "PATH": f"{place}/.venv/bin:{ENVIRONMENT['PATH']}"}

    def start() -> subprocess.Popen[str]:
        to = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        return subprocess.Popen(["bash", "job"], cwd=place, env=environment | {"SLURM_JOB_ID": "4711"}, **to)

    job = start()
    until(lambda: '"loss"' in says(run, "metrics.jsonl"), job)
    job.send_signal(signal.SIGUSR1)
    output = job.communicate(timeout=120)[0]
    assert job.returncode == 75 and says(place, "asked-of-slurm") == "requeue 4711\n", output
    [saved] = run.glob("checkpoints/checkpoint-*")
    assert not (run / "summary.json").exists()
    job = start()
    output = job.communicate(timeout=240)[0]
    assert job.returncode == 0 and f"continuing from runs/tiny-sft/checkpoints/{saved.name}" in output, output
    assert json.loads((run / "summary.json").read_text())["steps"] == 60
    assert says(place, "asked-of-slurm") == "requeue 4711\n"


def test_mistakes_are_said_before_a_job_waits_for_its_turn(tmp_path):
    place = make_workspace(tmp_path)
    for words in (["launch", "tiny/sft"], ["launch", "--slurm", "tiny/sft", "training.max_step=4"]):
        assert olmoe_ft(place, *words).returncode == 2
    (place / "runs/tiny-sft").mkdir(parents=True)
    (place / "runs/tiny-sft/notes").touch()
    refused = olmoe_ft(place, "launch", "--slurm", "tiny/sft")
    assert refused.returncode == 2 and "holds files but no recipe.yaml" in refused.stderr
