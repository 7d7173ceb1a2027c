"""The package as pip installs it, away from the checkout: a new user's first commands, in an empty folder."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from support import REPOSITORY
from support.launches import ENVIRONMENT

SHORT = ("training.logging_steps=1", "tracking.wandb=off", "data.train.0.max_rows=300", "data.answers.limit=2")


# without this checkout on the path of what is started
ALONE = {name: value for name, value in ENVIRONMENT.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}


def run(*command: str | Path, cwd: Path) -> str:
    """What a command prints; fails where the command does."""
    done = subprocess.run(command, cwd=cwd, env=ALONE, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-6000:]
    return done.stdout


@pytest.fixture(scope="module")
def programs(tmp_path_factory) -> Path:
    """The programs of a new environment that has the package, from a wheel that is built from an sdist."""
    folder = tmp_path_factory.mktemp("wheel")
    build = "import hatchling.build, sys; hatchling.build.build_sdist(sys.argv[1])"
    run(sys.executable, "-c", build, folder, cwd=REPOSITORY)
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-cache-dir")
    alone = ("--no-deps", "--no-index")
    [source] = folder.glob("*.tar.gz")
    run(*pip, "wheel", *alone, "--no-build-isolation", "--wheel-dir", folder, source, cwd=folder)
    [wheel] = folder.glob("*.whl")
    run(sys.executable, "-m", "venv", "--without-pip", folder / "new", cwd=folder)
    run(*pip, "--python", folder / "new/bin/python", "install", *alone, wheel, cwd=folder)
    # Its libraries are those here. An editable install is not among them: a folder that a .pth file names brings what
    # is in it, but not what the .pth files in it name.
    [packages] = folder.glob("new/lib/python*/site-packages")
    libraries = [path for path in sys.path if Path(path).name == "site-packages"]
    (packages / "libraries.pth").write_text("\n".join(libraries))
    return folder / "new/bin"


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """A repository of the user's own with nothing in it."""
    folder = tmp_path_factory.mktemp("place")
    author = ("-c", "user.name=u", "-c", "user.email=u@localhost")
    run("git", "init", "--quiet", cwd=folder)
    run("git", *author, "commit", "--quiet", "--allow-empty", "--message", "first", cwd=folder)
    return folder


def test_a_missing_run_is_not_looked_for_inside_the_package(programs, place):
    command = [programs / "olmoe-ft", "train", "tiny/dpo"]
    done = subprocess.run(command, cwd=place, env=ALONE, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2 and "`olmoe-ft train tiny/sft` makes runs/tiny-sft" in done.stderr
    assert done.stderr.endswith(f"(looked for {place}/runs/tiny-sft)\n")


def test_a_shipped_recipe_runs_by_its_name_in_an_empty_folder(programs, place):
    code = run(programs / "python", "-c", "import olmoe_ft; print(olmoe_ft.__file__)", cwd=place)
    assert Path(code).is_relative_to(programs.parent)  # what is tried here is the wheel
    assert Path(code.strip()).with_name("py.typed").exists()  # so that a type checker reads our annotations
    run(programs / "olmoe-ft", "train", "tiny/sft", "training.max_steps=3", *SHORT, cwd=place)
    run_directory = place / "runs/tiny-sft"
    steps = [json.loads(line)["step"] for line in (run_directory / "metrics.jsonl").read_text().splitlines()]
    assert steps[:4] == [0, 1, 2, 3]  # the first one is of the answers before training
    assert (run_directory / "final/model.safetensors").stat().st_size > 7e6  # 2 M parameters of 4 bytes
    recipe = yaml.safe_load((run_directory / "recipe.yaml").read_text())
    assert recipe["model"]["config"] == "configs/model/olmoe_tiny.json"
    [launch] = json.loads((run_directory / "run.json").read_text())["launches"]
    assert launch["git_revision"] is None  # the repository around the folder is not this project's


@pytest.mark.slow  # quick ones of its parts: test_catalog copies, and the test above runs what the wheel brings
def test_a_copied_recipe_is_launched_on_a_copied_machine_shape(programs, place):
    """With rows beside the recipe, which is in a folder of its own."""
    assert "tiny/sft" in run(programs / "olmoe-ft", "recipes", cwd=place)
    run(programs / "olmoe-ft", "recipes", "copy", "tiny/sft", "--to", "mine/sft.yaml", cwd=place)
    recipe = place / "mine/sft.yaml"
    recipe.write_text(recipe.read_text().replace("name: tiny-sft", "name: mine").replace("data/skills/train", "rows"))
    rows = [{"prompt": f"Say {word}.", "completion": word} for word in ("one", "two", "three", "four")] * 20
    (place / "mine/rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    run(programs / "olmoe-ft", "validate", "mine/sft.yaml", cwd=place)
    # no DeepSpeed: it would compile its operator again for each new environment, most of a minute
    run(programs / "olmoe-ft", "recipes", "copy", "configs/accelerate/cpu", cwd=place)
    launch = ("-m", "accelerate.commands.launch", "--config_file", "configs/accelerate/cpu.yaml")
    small = ("training.max_steps=2", "training.per_device_train_batch_size=2", *SHORT[:2], "data.answers=null")
    run(programs / "python", *launch, "-m", "olmoe_ft", "train", "mine/sft.yaml", *small, cwd=place)
    assert json.loads((place / "runs/mine/summary.json").read_text())["steps"] == 2
    assert (
        yaml.safe_load((place / "runs/mine/recipe.yaml").read_text())["data"]["train"][0]["path"] == "mine/rows.jsonl"
    )


def test_shipped_tasks_and_their_rows_are_in_the_wheel(programs, place):
    code = (
        "from olmoe_ft.evaluation.task_files import load_tasks, shipped_tasks\n"
        "print(len(load_tasks(['skills'])['tasks']['skills'].test_docs()), *shipped_tasks())"
    )
    count, *names = run(programs / "python", "-c", code, cwd=place).split()
    assert int(count) == len((REPOSITORY / "data/skills/heldout.jsonl").read_text().splitlines())
    assert names == sorted(file.stem for file in (REPOSITORY / "olmoe_ft/evaluation/tasks").glob("*.yaml"))


def test_a_plan_needs_no_checkout(programs, place):
    """The configurations that it compares, and the one it is asked for, are the package's."""
    shape = ("--accelerate", "configs/accelerate/zero3.yaml", "--devices", "2")
    shown = run(programs / "olmoe-ft", "plan", "tiny/sft", "name=planned", *SHORT, *shape, cwd=place)
    assert "fits in 80 GiB" in shown and "zero3 on 2 device(s)" in shown
    assert (place / "runs/planned/data_report.json").exists()
