"""Which checkpoints count, which stay, and what is nobody's here."""

import json

import pytest

from olmoe_ft.checkpoints.manifest import write_manifest
from olmoe_ft.checkpoints.run_checkpoints import RunCheckpoints, put_aside
from olmoe_ft.checkpoints.verify import verify
from olmoe_ft.recipe import RecipeError


def add(checkpoints: RunCheckpoints, step: int, best: int | None = None) -> None:
    folder = checkpoints.of_step(step)
    folder.mkdir(parents=True)
    (folder / "trainer_state.json").write_text(json.dumps({"global_step": step, "best_global_step": best}))
    (folder / "stood_on.json").write_text("{}")
    write_manifest(folder)


@pytest.fixture
def checkpoints(tmp_path):
    found = RunCheckpoints(tmp_path / "checkpoints")
    for step in (3, 6, 9, 12):
        add(found, step)
    return found


def names(checkpoints: RunCheckpoints) -> list[str]:
    return [folder.name for folder in checkpoints.newest_first()]


def test_others_in_the_folder_are_nobody_s(checkpoints):
    others = ("checkpoint-best", "checkpoint-4-backup", "checkpoint-9.damaged")
    for name in others:
        (checkpoints.path / name).mkdir()
    (checkpoints.path / "checkpoint-99").touch()
    assert names(checkpoints) == ["checkpoint-12", "checkpoint-9", "checkpoint-6", "checkpoint-3"]
    assert [place.name for place in checkpoints.of_others()] == [
        "checkpoint-4-backup",
        "checkpoint-99",
        "checkpoint-best",
    ]
    checkpoints.keep(1, None)
    assert names(checkpoints) == ["checkpoint-12"]
    assert all((checkpoints.path / name).is_dir() for name in others)


@pytest.mark.parametrize(
    ("limit", "best", "left"),
    [
        (None, None, [12, 9, 6, 3]),
        (2, None, [12, 9]),
        (1, 6, [12, 6]),
        (2, 6, [12, 6]),
        (3, 6, [12, 9, 6]),
        (1, 12, [12]),
        (9, 3, [12, 9, 6, 3]),
        (2, 99, [12, 9]),
    ],
)
def test_the_newest_and_the_best_stay(checkpoints, limit, best, left):
    checkpoints.keep(limit, best)
    assert names(checkpoints) == [f"checkpoint-{step}" for step in left]
    assert not checkpoints.aside.exists()


def test_a_name_that_is_taken_is_given_all_the_same(checkpoints):
    checkpoints.of_step(15).touch()
    (checkpoints.aside / "checkpoint-15").mkdir(parents=True)
    checkpoints.name(15)
    assert checkpoints.of_step(15).is_dir() and (checkpoints.path / "checkpoint-15.before").is_file()


def test_the_newest_whole_one_is_found(checkpoints):
    (checkpoints.of_step(12) / "stood_on.json").write_text("{ }")
    (checkpoints.of_step(9) / "trainer_state.json").unlink()
    found = [(folder.name, damage) for folder, damage in checkpoints.examined()]
    assert found == [
        ("checkpoint-12", "stood_on.json has 3 bytes instead of 2"),
        ("checkpoint-9", "trainer_state.json is missing"),
        ("checkpoint-6", None),
    ]


def test_a_folder_of_another_step_is_not_gone_on_from(checkpoints):
    checkpoints.of_step(12).rename(checkpoints.of_step(13))
    assert next(checkpoints.examined())[1] == "it is not a checkpoint of that step"


def test_where_the_best_one_is_asked_for_it_must_be_whole(checkpoints):
    add(checkpoints, 15, best=9)
    assert next(checkpoints.examined(needs_best=True)) == (checkpoints.of_step(15), None)
    (checkpoints.of_step(9) / "stood_on.json").unlink()
    found = "the best one so far, checkpoint-9, is damaged: stood_on.json is missing"
    assert next(checkpoints.examined(needs_best=True)) == (checkpoints.of_step(15), found)
    assert next(checkpoints.examined()) == (checkpoints.of_step(15), None)


def test_put_aside_never_overwrites(tmp_path):
    for number in ("", "-2", "-3"):
        (tmp_path / "final").mkdir()
        assert put_aside(tmp_path / "final").name == f"final.damaged{number}"


def test_verify_names_what_is_damaged(checkpoints, tmp_path):
    (tmp_path / "recipe.yaml").write_text("name: x\n")
    (checkpoints.of_step(6) / "stood_on.json").unlink()
    found = {item.place.name: item.damage or item.note for item in verify(str(tmp_path))}
    assert found == {
        "recipe.yaml": "",
        "checkpoint-3": "",
        "checkpoint-6": "stood_on.json is missing",
        "checkpoint-9": "",
        "checkpoint-12": "",
        "final": "there is no such folder: the run has not finished; start it again to finish it",
    }
    assert [item.damage for item in verify(str(checkpoints.of_step(3)))] == [None]


def test_verify_asks_for_a_run(tmp_path):
    with pytest.raises(RecipeError, match="there is no such folder; name a run directory"):
        verify(str(tmp_path / "none"))
    with pytest.raises(RecipeError, match=r"found neither a run .* nor a manifest.json"):
        verify(str(tmp_path))
