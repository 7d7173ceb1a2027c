"""`olmoe-ft sweep` as users type it, on the tiny network: plans, SLURM's lines, and points that are trained."""

import json
import shlex
import signal
import time
from pathlib import Path

import pytest
from safetensors.numpy import load_file
from support import REPOSITORY
from support.launches import ENVIRONMENT, SHORT, Forked, make_workspace, olmoe_ft

from olmoe_ft.training.lock import refuse_second

LR = "training.learning_rate"
QUICK = [*SHORT, "data.cache=cache"]  # of this workspace alone


@pytest.fixture(scope="module")
def workspace(tmp_path_factory) -> Path:
    return make_workspace(tmp_path_factory.mktemp("sweeps"))


def quick(*arguments: str) -> list[str]:
    """The arguments, and for what they do not set, a few steps over a part of the skills."""
    keys = {text.partition("=")[0] for text in arguments}
    return [*(text for text in QUICK if text.partition("=")[0] not in keys), *arguments]


def sweep(workspace: Path, *arguments: str):
    return olmoe_ft(workspace, "sweep", "tiny/sft", *quick(*arguments))


def states(workspace: Path, name: str) -> dict[str, str]:
    content = json.loads((workspace / f"runs/{name}/sweep.json").read_text())
    return {point["name"]: point["state"] for point in content["points"]}


def steps(run: Path) -> list[int]:
    if not (run / "metrics.jsonl").exists():
        return []
    records = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
    return [record["step"] for record in records if "loss" in record]


def test_a_plan_names_what_does_not_fit_and_writes_nothing(workspace):
    """A reserve of 1 GiB is kept free: 0.07 GiB of a batch of 8 fit into 1.2 GiB, the 0.46 of one of 400 do not."""
    result = sweep(
        workspace, "training.per_device_train_batch_size=8,400", "training.packing=false", f"{LR}=1e-3,2e-3",
        "--plan", "--device-memory", "1.2", "--name", "planned",
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    assert "pdtbs=400,lr=0.001 needs" in result.stdout and "of a device that has 1.2" in result.stdout
    assert "pdtbs=8,lr=0.001 needs" not in result.stdout
    (total,) = [line for line in result.stdout.splitlines() if "all that fit" in line]
    cells = [cell.strip() for cell in total.split("│")]
    assert (cells[2], cells[3], cells[6]) == ("20", "?", "2")  # steps; hours, unknown on a CPU; points
    assert not (workspace / "runs").exists()


def test_nothing_fits(workspace):
    result = sweep(workspace, f"{LR}=1e-3,2e-3", "--device-memory", "1", "--name", "nothing")
    assert result.returncode == 2 and "no point fits" in result.stderr
    assert not (workspace / "runs").exists()


def test_a_part_of_a_grid_says_that_it_is_one(workspace):
    result = sweep(workspace, f"{LR}=1e-5..1e-3:log:9", "--max", "2", "--plan")
    assert result.returncode == 0, result.stderr
    assert "2 of the grid's 9 points, drawn with seed 0" in result.stdout and "2 point(s)" in result.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([f"{LR}=1,2", "--search", "bayes"], "--search: found bayes; allowed: grid, random, tpe"),
        ([f"{LR}=1e-5..1e-3:log", "--search", "random"], "needs the number of points; add --max 20"),
        ([f"{LR}=1,2", "--name", "a/b"], "--name: found a/b"),
        ([f"{LR}=1,2", "--nodes", "2"], "--nodes: found without --slurm"),
        ([f"{LR}=1e-5..1e-3:log", "--search", "tpe", "--max", "3", "--slurm"], "leave out --slurm"),
        (["training.learnig_rate=1,2"], "did you mean `learning_rate`?"),
        ([f"{LR}=1,2", "--accelerate", "configs/accelerate/none.yaml"], "there is no such file"),
    ],
)
def test_mistakes_are_said_before_anything_runs(workspace, arguments, message):
    result = sweep(workspace, *arguments)
    assert result.returncode == 2 and message in " ".join(result.stderr.split())
    assert not (workspace / "runs").exists()


def test_lines_for_slurm_are_commands_that_make_jobs(workspace):
    result = sweep(
        workspace, f"{LR}=1e-3,2e-3", "--name", "jobs", "--slurm",
        "--accelerate", "configs/accelerate/gpu.yaml", "--sbatch", "partition=gpu",
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    lines = [shlex.split(line) for line in result.stdout.splitlines()]  # and nothing else
    assert [line[-5] for line in lines] == ["name=jobs/lr=0.001", "name=jobs/lr=0.002"]
    assert all(
        line[:4] == ["olmoe-ft", "launch", "--slurm", "tiny/sft"] and line[-2:] == ["--sbatch", "partition=gpu"]
        for line in lines
    )
    hours = [line for line in result.stderr.splitlines() if "all that fit" in line][0].split("│")[3]
    assert float(hours) > 0  # on a GPU there is a prediction
    job = olmoe_ft(workspace, *lines[0][1:], "--dry-run")
    assert job.returncode == 0 and "RUN=runs/jobs/lr=0.001\n" in job.stdout
    assert "#SBATCH --job-name=jobs-lr=0.001" in job.stdout


def test_points_are_trained_a_diverging_one_is_stopped_and_rows_are_tokenized_once(workspace):
    arguments = [f"{LR}=100,2e-3", "training.max_steps=200", "--name", "diverging"]
    result = sweep(workspace, *arguments)
    output = result.stdout + result.stderr
    assert result.returncode == 0, output[-3000:]
    assert states(workspace, "diverging") == {"lr=100": "diverged", "lr=0.002": "finished"}
    runs = workspace / "runs/diverging"
    assert not (runs / "lr=100/summary.json").exists() and (runs / "lr=0.002/summary.json").exists()
    assert len(steps(runs / "lr=100")) < 200 and (runs / "lr=100/checkpoints").exists()
    table = output[output.index("by loss/task, the best first") :]
    assert table.index("lr=0.002") < table.index("lr=100") and "times its lowest" in table
    assert (runs / "compare.html").is_file() and "runs/diverging/compare.html" in table
    assert len([*(workspace / "cache").glob("tokens-*")]) == 1
    made = {place: place.stat().st_mtime_ns for place in (workspace / "cache").iterdir()}

    again = sweep(workspace, *arguments)
    assert again.returncode == 0 and "$ olmoe-ft train" not in again.stdout  # both are done
    hours = [line for line in again.stdout.splitlines() if "all that fit" in line][0].split("│")[3]
    assert float(hours) > 0 and "from the points that have finished" in again.stdout
    assert {place: place.stat().st_mtime_ns for place in (workspace / "cache").iterdir()} == made

    other = sweep(workspace, f"{LR}=100,2e-3", "training.max_steps=100", "--name", "diverging")
    assert other.returncode == 2 and "give this one another --name" in other.stderr


def test_a_point_that_fails_is_marked_and_the_others_go_on(workspace):
    """A folder is in the place of the first point's lock, which a launch sees and a plan does not."""
    (workspace / "runs/failing/lr=0.001/lock").mkdir(parents=True)
    result = sweep(workspace, f"{LR}=1e-3,2e-3", "training.max_steps=3", "--name", "failing")
    assert result.returncode == 1 and "1 of 2 point(s) failed (lr=0.001)" in result.stderr
    assert states(workspace, "failing") == {"lr=0.001": "failed", "lr=0.002": "finished"}
    content = json.loads((workspace / "runs/failing/sweep.json").read_text())
    assert "lr=0.001/lock: found a folder" in content["points"][0]["reason"]


def test_a_stopped_sweep_goes_on_where_it_was(workspace, tmp_path):
    """Its run saves, whether the sweep passes SIGTERM on or is killed, which the run notices."""
    arguments = quick(f"{LR}=2e-3,1e-3", "training.max_steps=150", "--name", "stopped")
    run, output, taken = workspace / "runs/stopped/lr=0.002", tmp_path / "output", 0
    checkpoints = []
    for number, code in ((signal.SIGTERM, 75), (signal.SIGKILL, -signal.SIGKILL)):
        with output.open("w") as stream:
            command = ["-m", "olmoe_ft", "sweep", "tiny/sft", *arguments]
            process = Forked(command, workspace, ENVIRONMENT, stream, stream)
            _wait(lambda before=taken: len(steps(run)) >= before + 2)
            process.send_signal(number)
            assert process.wait(200) == code, output.read_text()[-3000:]
        _wait(lambda: not _is_trained(run))
        assert len(steps(run)) > taken and states(workspace, "stopped")["lr=0.001"] == "planned"
        taken = len(steps(run))
        checkpoints.append(f"checkpoint-{taken}")
    again = olmoe_ft(workspace, *command[2:])
    assert again.returncode == 0, again.stderr[-3000:]
    assert set(states(workspace, "stopped").values()) == {"finished"}
    assert steps(run) == list(range(1, 151))
    launches = json.loads((run / "run.json").read_text())["launches"]
    assert [one["resumed_from"] for one in launches] == [None, *checkpoints]


def _wait(until) -> None:
    end = time.monotonic() + 200
    while not until():
        assert time.monotonic() < end
        time.sleep(0.1)


def _is_trained(run: Path) -> bool:
    try:
        refuse_second(run)
    except ValueError:
        return True
    return False


def test_the_ablation_of_the_router(workspace):
    """The command of docs/router-objective.md, in few steps: four points from one start, on one page."""
    start = sweep(workspace, f"{LR}=2e-3,1e-3", "training.max_steps=3", "--by", "eval_lss", "--name", "start")
    # an unknown metric is said once a run shows which there are, and not after all of them
    assert start.returncode == 2 and "--by: found eval_lss" in start.stderr and "loss/task" in start.stderr
    assert states(workspace, "start") == {"lr=0.002": "finished", "lr=0.001": "planned"}
    model = workspace / "runs/start/lr=0.002"
    text = (REPOSITORY / "docs/router-objective.md").read_text()
    (command,) = [line for line in text.splitlines() if line.startswith("olmoe-ft sweep tiny/dpo")]
    varied = [*shlex.split(command)[3:], "training.max_steps=3", f"model.path={model.relative_to(workspace)}"]
    result = olmoe_ft(workspace, "sweep", "tiny/dpo", *quick(*varied, "--name", "ablation"))
    assert result.returncode == 0, result.stderr[-3000:]
    names = [f"lbc={coefficient},train={train}" for coefficient in ("0", "0.01") for train in ("full", "frozen")]
    assert states(workspace, "ablation") == dict.fromkeys(names, "finished")
    assert "the routers are frozen and router.load_balancing_coef is 0.01" in result.stdout
    gates = [load_file(run / "final/model.safetensors") for run in (model, workspace / f"runs/ablation/{names[3]}")]
    frozen = [name for name in gates[0] if name.endswith("mlp.gate.weight")]
    assert len(frozen) == 4 and all((gates[0][name] == gates[1][name]).all() for name in frozen)
    page = (workspace / "runs/ablation/compare.html").read_text()
    assert all(name in page for name in names)
