"""The bytes of a checkpoint, beside a real one; how many there are; what is said where there is no room."""

import errno
import resource
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from support.training_cases import Case

from olmoe_ft.model import OlmoeConfig
from olmoe_ft.recipe import RecipeError, RunError, load_recipe
from olmoe_ft.training.arguments import training_arguments, zero_stage
from olmoe_ft.training.launch_guard import LaunchGuard
from olmoe_ft.training.run_directory import RunDirectory
from olmoe_ft.training.space import MIB, Space, check_space, space_of
from olmoe_ft.training.steps import Steps

REPOSITORY = Path(__file__).parents[2]
RECIPE, NETWORK = REPOSITORY / "recipes/tiny/sft.yaml", REPOSITORY / "configs/model/olmoe_tiny.json"
STEPS = Steps(per_epoch=10, steps=40, repeated=0, left_out=0)
BFLOAT16 = ("model.dtype=bfloat16", "training.optim=null")


def size(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


@pytest.mark.parametrize(
    ("case", "overrides"),
    [
        (Case(), ()),
        (Case(), BFLOAT16),
        (Case(), ("training.optim=adafactor",)),
        (Case(form="lora"), ("lora.r=64",)),
        (Case(form="lora"), ("lora.r=64", *BFLOAT16)),
        (Case("dpo"), ("router.train=frozen",)),
    ],
    ids=lambda value: value.name if isinstance(value, Case) else " ".join(value),
)
def test_a_checkpoint_has_the_size_that_was_said(make_trainer, case, overrides):
    trainer = make_trainer(case, "training.save_strategy=steps", "training.save_steps=2", *overrides)
    trainer.train()
    recipe = load_recipe(next(Path("runs").glob("*/recipe.yaml")))
    run = RunDirectory(recipe)
    trainer.save_model(str(run.final))
    said = space_of(recipe, trainer.network.config, trainer.args, STEPS, zero_stage(trainer.args), 1)
    (real,) = run.checkpoints.path.glob("checkpoint-*")
    assert said.checkpoint == pytest.approx(size(real), rel=0.05)
    assert said.final == pytest.approx(size(run.final), rel=0.05)


@pytest.mark.parametrize(
    ("overrides", "kept", "rotates"),
    [
        (("save_steps=8", "save_total_limit=null"), 5, False),  # no limit: all of them
        (("save_steps=7", "save_total_limit=null"), 6, False),  # after 7, 14, 21, 28, 35 and the last step
        (("save_steps=8", "save_total_limit=1"), 1, True),
        (("save_steps=0.25", "save_total_limit=3"), 3, True),
        (("save_steps=20", "save_total_limit=3"), 2, False),
        (("save_strategy=epoch", "save_total_limit=2"), 2, True),
        (("save_strategy='no'",), 0, False),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else None,
)
def test_how_many_checkpoints_lie_there_at_once(tmp_path, monkeypatch, overrides, kept, rotates):
    recipe = load_recipe(RECIPE, [f"training.{one}" for one in overrides])
    monkeypatch.chdir(tmp_path)
    arguments = training_arguments(recipe, RunDirectory(recipe))
    found = space_of(recipe, OlmoeConfig.from_json_file(NETWORK), arguments, STEPS, None, 1)
    assert (found.kept, found.rotates) == (kept, rotates)


def test_the_best_checkpoint_is_kept_beside_the_newest(tmp_path, monkeypatch):
    best = "load_best_model_at_end=true", "metric_for_best_model=loss", "save_total_limit=1", "save_steps=5"
    evaluates = "training.eval_strategy=steps", "training.eval_steps=5", "data.eval=[{path: data/skills/heldout.jsonl}]"
    recipe = load_recipe(RECIPE, [*(f"training.{one}" for one in best), *evaluates])
    monkeypatch.chdir(tmp_path)
    arguments = training_arguments(recipe, RunDirectory(recipe))
    assert space_of(recipe, OlmoeConfig.from_json_file(NETWORK), arguments, STEPS, None, 1).kept == 2


@pytest.fixture
def run(tmp_path, monkeypatch) -> RunDirectory:
    recipe = load_recipe(RECIPE, ["name=here"])
    monkeypatch.chdir(tmp_path)
    return RunDirectory(recipe)


NEEDS = Space(checkpoint=20 * MIB, kept=2, rotates=True, base=7 * MIB, final=7 * MIB)


def free(monkeypatch, size: int) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda place: SimpleNamespace(free=size))


def test_a_run_without_room_is_refused_with_what_it_needs(run, monkeypatch):
    free(monkeypatch, 60 * MIB)
    with pytest.raises(RecipeError) as refused:
        check_space(run, NEEDS)
    assert str(refused.value) == (
        "runs/here: the run needs 67.0 MiB at most: 2 checkpoints of 20.0 MiB and one that is being written, "
        "base/ 7.0 MiB, final/ 7.0 MiB; found 0.0 MiB of it written and 60.0 MiB free; free some space, make runs/ a "
        "link to another disk, or lower training.save_total_limit (now 1)"
    )
    assert not run.path.exists()
    (run.base).mkdir(parents=True)
    (run.base / "model.safetensors").write_bytes(bytes(7 * MIB))  # an earlier launch's
    check_space(run, NEEDS)


def test_what_a_save_without_room_says(run, monkeypatch):
    """torch gives no reason. Where the disk has room, it is a limit on files."""
    launch = LaunchGuard(run)
    launch.space = NEEDS
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    ends = []
    for room in (MIB, 100 * MIB):
        with pytest.raises(RunError) as ended, launch.in_order():
            run.create()
            launch.stepped = True
            resource.setrlimit(resource.RLIMIT_FSIZE, (MIB, before[1]))
            try:
                torch.save(torch.zeros(2 * MIB), run.path / "optimizer.pt")
            finally:
                resource.setrlimit(resource.RLIMIT_FSIZE, before)
                free(monkeypatch, room)
        ends.append(str(ended.value))
    assert ends[0] == (
        "runs/here: no space left; a checkpoint needs 20.0 MiB, and 1.0 MiB are free; free some space or lower "
        "training.save_total_limit, and start the run again"
    )
    assert "a checkpoint needs 20.0 MiB, and 100.0 MiB are free, so check your quota and `ulimit -f`" in ends[1]


def test_room_that_another_disk_lacks_is_not_the_run_s(run, tmp_path):
    launch = LaunchGuard(run)
    launch.space = NEEDS
    with pytest.raises(RecipeError, match="^/elsewhere/cache: No space left on device; free some space on this disk"):
        with launch.in_order():
            raise OSError(errno.ENOSPC, "No space left on device", "/elsewhere/cache")
