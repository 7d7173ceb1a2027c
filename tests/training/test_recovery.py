"""What is damaged in a run directory is put aside and named; nothing whole is lost."""

import json
import shutil

import pytest

from olmoe_ft.checkpoints.manifest import write_manifest
from olmoe_ft.checkpoints.verify import verify
from olmoe_ft.recipe import load_recipe
from olmoe_ft.training.launch_record import Launch
from olmoe_ft.training.recovery import find, put_misplaced_aside, recover
from olmoe_ft.training.run_directory import RunDirectory

STEPS = "training.max_steps=16"
SUMMARY = {"name": "here", "steps": 16, "train_seconds": 1.0, "train_loss": 2.0}


@pytest.fixture
def run(recipe) -> RunDirectory:
    """A run of sixteen steps that was stopped behind its second checkpoint."""
    run = RunDirectory(recipe(STEPS))
    run.create()
    run.record_launch(
        Launch(processes=1, device="cpu", resumed_from=None, data={}, precision={}, changed=[], accepted={})
    )
    lines = [json.dumps({"step": step}) + "\n" for step in (5, 8, 16, 16)]
    for step, records in ((8, 2), (16, 3)):
        folder = run.checkpoints.of_step(step)
        folder.mkdir(parents=True)
        (folder / "trainer_state.json").write_text(json.dumps({"global_step": step}))
        recipe = run.recipe.model_dump(mode="json")
        (folder / "stood_on.json").write_text(json.dumps({"recipe": recipe}))
        (folder / "metrics.jsonl").write_text("".join(lines[:records]))
        write_manifest(folder)
    run.metrics.write_text("".join(lines) + '{"step": 2')
    return run


def finish(run: RunDirectory) -> None:
    run.unfinished.mkdir()
    (run.unfinished / "model.safetensors").write_bytes(b"weights")
    write_manifest(run.unfinished)
    run.finish(SUMMARY)


def with_overrides(*overrides: str) -> RunDirectory:
    return RunDirectory(load_recipe("recipe.yaml", [STEPS, *overrides]))


def steps(run: RunDirectory) -> list[int]:
    return [json.loads(line)["step"] for line in run.metrics.read_text().splitlines()]


def test_records_behind_the_checkpoint_go(run):
    """The last of step 16 is the closing one: it was written behind the checkpoint, so it will be written again."""
    found = find(run)
    assert found.resume == run.checkpoints.of_step(16)
    assert recover(run, found) == [] and steps(run) == [5, 8, 16]
    assert recover(run, found) == [] and steps(run) == [5, 8, 16]


def test_a_damaged_checkpoint_is_named_and_kept(run):
    (run.checkpoints.of_step(16) / "trainer_state.json").write_text("")
    found = find(run)
    assert found.resume == run.checkpoints.of_step(8)
    assert recover(run, found) == [
        "runs/here/checkpoints/checkpoint-16 is damaged (trainer_state.json has 0 bytes instead of 19), kept as "
        "checkpoint-16.damaged",
        "continuing from runs/here/checkpoints/checkpoint-8",
    ]
    assert steps(run) == [5, 8] and (run.checkpoints.path / "checkpoint-16.damaged/stood_on.json").exists()


def test_without_a_whole_one_it_starts_over_and_says_so(run):
    for step in (8, 16):
        (run.checkpoints.of_step(step) / "manifest.json").unlink()
    found = find(run)
    assert found.resume is None
    assert recover(run, found)[-1] == "no checkpoint is undamaged: starting at step 0"
    assert steps(run) == [] and len(list(run.checkpoints.path.iterdir())) == 2


def test_a_run_without_checkpoints_starts_over_and_says_so(run):
    shutil.rmtree(run.checkpoints.path)
    assert recover(run, find(run)) == ["no checkpoint was saved: starting at step 0"]


def test_a_folder_that_is_only_called_like_a_checkpoint_is_the_users(run):
    run.checkpoints.of_step(8).rename(run.checkpoints.path / "checkpoint-08")
    assert find(run).resume == run.checkpoints.of_step(16)
    run.checkpoints.keep(1, None)
    assert [place.name for place in run.checkpoints.of_others()] == ["checkpoint-08"]


def test_what_was_being_written_or_removed_goes(run):
    (run.checkpoints.aside / "checkpoint-24").mkdir(parents=True)
    recover(run, find(run))
    assert not run.checkpoints.aside.exists()


NONSENSE = "half {"
SIDE_FILES = [
    (name, content)
    for name in ("run.json", "recipe.yaml", "metrics.jsonl", "routing_probe.safetensors", "checkpoints")
    for content in (None, "nowhere", NONSENSE)
    if (name, content) != ("routing_probe.safetensors", NONSENSE)  # each launch writes it, and reads none of before
]


@pytest.mark.parametrize(("name", "content"), SIDE_FILES)
def test_side_files_do_not_block_a_run(run, name, content):
    """A folder, a link to nowhere or nonsense in the place of a file: named, kept, and written anew."""
    place = run.path / name
    if place.exists():
        place.rename("elsewhere")
    if content is None and name == "checkpoints":
        place.touch()
    elif content is None:
        place.mkdir()
    elif content == "nowhere":
        place.symlink_to("nowhere")
    else:
        place.write_text(content)
    run.check()
    found = find(run)
    assert found.resume == (None if name == "checkpoints" else run.checkpoints.of_step(16))
    said, *_ = put_misplaced_aside(run) + recover(run, found)
    assert said.startswith(f"runs/here/{name} is damaged, kept as {name}.damaged")
    assert (run.path / f"{name}.damaged").exists() or (run.path / f"{name}.damaged").is_symlink()


def test_damaged_records_are_those_of_the_checkpoint(run):
    run.metrics.write_text('{"step": 5}\n\x00\x00\n{"step": 16}\n')
    (said,) = recover(run, find(run))
    assert said.startswith("runs/here/metrics.jsonl is damaged, kept as metrics.jsonl.damaged; ")
    assert steps(run) == [5, 8, 16]


def test_a_recipe_that_was_damaged_is_that_of_the_checkpoint(run):
    run.stored.write_text(run.stored.read_text().replace("max_steps: 16", "learning_rate: 16"))
    run.check()
    assert run.changed() == []


def test_a_finished_run_is_finished_and_damage_makes_it_unfinished(run):
    assert run.finished() is None
    finish(run)
    assert run.finished() == SUMMARY
    run.summary.write_text(run.summary.read_text().replace("16", "61"))
    assert run.finished() is None
    assert recover(run, find(run)) == [
        "runs/here/summary.json is damaged (it has changed since it was written), kept as summary.json.damaged"
    ]


@pytest.mark.parametrize("name", ["routing.parquet", "metrics.jsonl", "recipe.yaml", "summary.json", "manifest.json"])
@pytest.mark.parametrize("way", ["changed", "cut off", "gone"])
def test_what_is_damaged_of_a_finished_run_is_named(run, name, way):
    run.routing_table.write_text("a table")
    finish(run)
    place = run.path / name
    content = place.read_bytes()
    place.write_bytes(content[:-1] + b"#" if way == "changed" else content[:-2])
    if way == "gone":
        place.unlink()
    assert run.finished() is None
    said = put_misplaced_aside(run) + recover(run, find(run))
    if (name, way) == ("manifest.json", "gone"):
        assert said == []  # as of a run that was killed before it wrote it
        return
    assert str(place) in said[0] and ("kept as" in said[0]) is (way != "gone")
    assert (run.path / f"{name}.damaged").exists() is (way != "gone")


@pytest.mark.parametrize("folder", ["base", "final"])
def test_a_folder_of_a_finished_run_that_is_gone_is_named(run, folder):
    run.base.mkdir()
    (run.base / "model.safetensors").write_bytes(b"start")
    write_manifest(run.base)
    finish(run)
    assert run.finished() == SUMMARY
    shutil.rmtree(run.path / folder)
    assert run.finished() is None
    assert any(found.damage == f"{folder}/manifest.json is missing" for found in verify("runs/here"))
    if folder == "base":
        assert recover(run, find(run)) == ["runs/here/base/manifest.json is missing; it is written again"]


def test_final_weights_that_changed_are_kept_aside(run):
    finish(run)
    (run.final / "model.safetensors").write_bytes(b"Weights")
    assert run.finished() is None
    said = recover(run, find(run))
    assert said[0] == (
        "runs/here/final is damaged (model.safetensors has changed since it was written), kept as final.damaged"
    )


def test_a_finished_run_can_be_lengthened_and_watched_otherwise(run):
    finish(run)
    watched = with_overrides("training.logging_steps=1", "tracking.wandb='off'")
    watched.check()
    assert watched.finished() == SUMMARY
    epochs = with_overrides("training.num_train_epochs=5")  # which says nothing beside max_steps
    epochs.check()
    assert epochs.finished() == SUMMARY
    longer = with_overrides("training.max_steps=24")
    longer.check()
    assert longer.finished() is None and longer.changed() == ["training.max_steps"]
    assert recover(longer, find(longer)) == [
        "runs/here/summary.json is kept as summary.json.of-16-steps",
        "runs/here/final is kept as final.of-16-steps",
    ]
