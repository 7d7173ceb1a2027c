"""`olmoe-ft launch --slurm`: what is put into the files of configs/slurm, and when nothing is submitted."""

import os
import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from olmoe_ft.constants import GIB
from olmoe_ft.planning.job import Needs
from olmoe_ft.planning.machine import Machine
from olmoe_ft.recipe import RecipeError, load_recipe
from olmoe_ft.shipped import FILES
from olmoe_ft.slurm import job_file, submit

OPTIONS = (  # of sbatch 20.11 and newer, as its manual spells them
    "account comment cpus-per-task exclusive gpus-per-node job-name mem nodes ntasks-per-node open-mode output "
    "partition requeue signal time"
).split()
ZERO3 = "configs/accelerate/zero3.yaml"
EIGHT = Machine("zero3", 8, stage=3, deepspeed=True)
NEEDS = Needs(steps=1000, seconds=9000.0, step=9.0, device=30 * GIB, host=100 * GIB + 1, checkpoint=10**11)
TEMPLATES = sorted((FILES / "configs/slurm").glob("*.sbatch"))


@pytest.fixture
def place(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    return tmp_path


def filled(machine: Machine = EIGHT, needs: Needs = NEEDS, given=(), recipe="tiny/sft", overrides=()) -> str:
    return job_file(load_recipe(recipe, overrides), [recipe, *overrides], ZERO3, machine, needs, given)


def options(text: str) -> dict[str, str]:
    return dict(re.findall(r"(?m)^#SBATCH --([a-z-]+)=?(.*)$", text))


def variables(text: str) -> str:
    """What the lines that are filled in give their variables, by bash."""
    names = "RECIPE ${OVERRIDES[@]} ACCELERATE RUN SUMMARY TORCH_ELASTIC_SHUTDOWN_TIMEOUT".split()
    shown = " ".join(f'"{name if name[0] == "$" else f"${name}"}"' for name in names)
    head = text.split("# Nothing to fill in from here on.")[0]
    return subprocess.check_output(["bash", "-c", f"{head}\nprintf '%s\\n' {shown}"], text=True)


def texts() -> dict[str, str]:
    one = Machine("cpu", 1, gpu=False)
    return {
        **{file.name: file.read_text() for file in TEMPLATES},
        "one": filled(one, replace(NEEDS, steps=None, seconds=None)),
        "nodes": filled(replace(EIGHT, nodes=2), given=["partition=gpu", "exclusive", "comment=it's # mine"]),
    }


@pytest.mark.parametrize("name", [*(file.name for file in TEMPLATES), "one", "nodes"])
def test_every_job_is_right_for_bash_and_slurm(name, tmp_path):
    text = texts()[name]
    (file := tmp_path / "job").write_text(text)
    subprocess.run(["bash", "-n", file], check=True)
    if (shellcheck := shutil.which("shellcheck")) is not None:
        subprocess.run([shellcheck, file], check=True)
    head, _, script = text.rpartition("\n#SBATCH ")
    assert set(options(text)) <= set(OPTIONS) and options(text)["signal"].startswith("B:USR1@")
    assert {"requeue": "", "open-mode": "append", "output": "%x-%j.out"}.items() <= options(text).items()
    # sbatch reads no further than the first command, so no option may stand behind it
    assert all(line.startswith("#") or not line for line in head.splitlines())
    assert max(map(len, text.splitlines())) <= 120


def test_the_two_jobs_differ_in_how_they_launch_alone():
    ends = [file.read_text().partition("shopt -s nullglob")[2] for file in TEMPLATES]
    assert len(ends) == 2 and ends[0] == ends[1] and "scontrol requeue" in ends[0]


def test_a_job_asks_for_what_the_plan_says():
    found = options(filled())
    assert found["job-name"] == "tiny-sft" and found["nodes"] == "1" and found["gpus-per-node"] == "8"
    assert found["mem"] == "101G"
    assert found["time"] == "5:00:00"  # 9,000 s x 1.5 and 1,800 s are 4.25 hours
    assert found["signal"] == "B:USR1@360"  # 120 s, 9 s and 10^11 bytes at 0.5 GB/s are 329 s
    assert variables(filled()).splitlines()[-1] == "360"
    assert "1,000 steps, the longest 9 s" in filled() and "30.0 GiB" in filled()
    two = options(filled(replace(EIGHT, nodes=2)))
    assert two["nodes"] == "2" and two["gpus-per-node"] == "4" and two["cpus-per-task"] == "32"


def test_a_job_without_a_time_says_so():
    text = filled(needs=replace(NEEDS, steps=None, seconds=None))
    assert options(text)["time"] == "12:00:00" and "no time is known without rows that can be read here" in text


def test_one_process_needs_no_launcher_and_no_gpu():
    text = filled(Machine("cpu", 1, gpu=False))
    assert "gpus-per-node" not in options(text) and "ACCELERATE=\n" in text


def test_values_are_read_by_bash_as_they_were_typed():
    overrides = ["training.max_steps=4", "data.train.0.path=data/skills/train.jsonl", "tracking.project=it's $HOME"]
    lines = variables(filled(overrides=overrides)).splitlines()
    assert lines == ["tiny/sft", *overrides, ZERO3, "runs/tiny-sft", "runs/tiny-sft/summary.json", "360"]


def test_a_pipeline_is_done_with_its_last_stage():
    assert "RUN=runs/tiny-pipeline\nSUMMARY=runs/tiny-pipeline/dpo/summary.json\n" in filled(recipe="tiny/pipeline")


def test_options_of_sbatch_come_before_ours():
    text = filled(given=["partition=gpu", "time=24:00:00", "signal=B:USR1@900", "exclusive", "comment=it's # mine"])
    assert {"partition": "gpu", "time": "24:00:00", "exclusive": ""}.items() <= options(text).items()
    assert options(text)["comment"] == """'it'"'"'s # mine'"""
    assert variables(text).splitlines()[-1] == "900"
    assert "# --time:" not in text and "# --mem:" in text  # no reason of ours for a value that is not


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("--partition=gpu", "allowed: one long option"),
        ("partition gpu", "allowed: one long option"),
        ("comment=two\nlines", "allowed: one long option"),
        ("nodes=4", "give --nodes 4"),
        ("signal=TERM@60", "allowed: signal=B:USR1@SECONDS"),
    ],
)
def test_options_that_no_job_can_have(given, message):
    with pytest.raises(RecipeError, match=message):
        filled(given=[given])


def test_a_machine_that_the_job_would_not_find_is_named(place):
    with pytest.raises(
        RecipeError, match=r"zero3.yaml: there is no such file in this folder.*`olmoe-ft recipes copy \S+/zero3` writes"
    ):
        filled()


SBATCH = '#!/bin/sh\ncp "$1" submitted && echo "Submitted batch job 17"\n'


def stand_in(place: Path, text: str) -> None:
    (place / "sbatch").write_text(text)
    (place / "sbatch").chmod(0o755)


def test_a_job_is_written_and_submitted(place, capsys):
    stand_in(place, SBATCH)
    submit("a job\n", Path("my.sbatch"))
    assert Path("submitted").read_text() == Path("my.sbatch").read_text() == "a job\n"
    assert capsys.readouterr().out == "Submitted batch job 17 (my.sbatch)\n"
    submit("a job\n", Path("my.sbatch"))  # the same once more, for a run that a mistake has ended
    with pytest.raises(RecipeError, match="my.sbatch: the file exists already, with another job"):
        submit("another job\n", Path("my.sbatch"))
    assert Path("my.sbatch").read_text() == "a job\n"


def test_what_slurm_refuses_leaves_no_file(place):
    stand_in(place, "#!/bin/sh\necho 'sbatch: error: invalid partition' >&2\nexit 1\n")
    with pytest.raises(RecipeError, match="refuses the job: sbatch: error: invalid partition"):
        submit("a job\n", Path("my.sbatch"))
    assert not Path("my.sbatch").exists()


def test_without_slurm_nothing_is_written(place, monkeypatch):
    monkeypatch.setenv("PATH", str(place))
    with pytest.raises(RecipeError, match="sbatch: there is no such command"):
        submit("a job\n", Path("my.sbatch"))
    assert not Path("my.sbatch").exists()
