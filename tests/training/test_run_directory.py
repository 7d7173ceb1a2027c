import re
import subprocess

import pytest

from olmoe_ft.recipe import RecipeError
from olmoe_ft.recipe.changes import Restart
from olmoe_ft.training import launch_record
from olmoe_ft.training.launch_record import git_revision
from olmoe_ft.training.run_directory import RunDirectory


def test_the_same_recipe_may_go_on_and_another_may_not(recipe):
    run = RunDirectory(recipe())
    run.check()
    run.create()
    RunDirectory(recipe()).check()
    with pytest.raises(RecipeError, match="differs in training.seed.*change `name`, start over with --fresh"):
        RunDirectory(recipe("training.seed=3", "training.max_steps=3")).check()
    RunDirectory(recipe("training.seed=3")).check(Restart(fresh=True))


def test_where_rows_are_kept_makes_no_other_run(recipe):
    RunDirectory(recipe()).create()
    RunDirectory(recipe("data.cache=elsewhere")).check()


def test_a_run_from_before_a_field_was_there_goes_on(recipe, tmp_path):
    """Its recipe.yaml lacks the field, whose default is what the run did."""
    RunDirectory(recipe()).create()
    stored = tmp_path / "runs/here/recipe.yaml"
    stored.write_text(re.sub("  (learn|turn_marks): .*\n", "", stored.read_text()))
    assert "learn:" not in stored.read_text()
    RunDirectory(recipe()).check()
    with pytest.raises(RecipeError, match=r"differs in data.learn.*go on all the same with --accept data$"):
        RunDirectory(recipe("data.learn=last_answer")).check()


def test_files_beside_the_stored_recipe_are_not_those_of_the_run(recipe, tmp_path):
    """What the run directory holds is not looked up again beside the recipe.yaml in it."""
    run = RunDirectory(recipe("data.train.0.path=final"))
    run.create()
    (tmp_path / "runs/here/final").mkdir()
    RunDirectory(recipe("data.train.0.path=final")).check()


def test_the_revision_is_that_of_the_code_and_of_no_other_repository(tmp_path, monkeypatch):
    subprocess.run(["git", "init", "--quiet", tmp_path], check=True)
    here = git_revision()
    assert here is None or re.fullmatch("[0-9a-f]{40}(-dirty)?", here)
    monkeypatch.chdir(tmp_path)
    assert git_revision() == here
    monkeypatch.setattr(launch_record, "CHECKOUT", False)  # installed, wherever that is
    monkeypatch.setattr(launch_record, "FILES", tmp_path)
    assert git_revision() is None


def test_a_folder_of_other_files_is_not_touched(recipe, tmp_path):
    (tmp_path / "runs/here").mkdir(parents=True)
    (tmp_path / "runs/here/thesis.txt").write_text("x")
    with pytest.raises(RecipeError, match="holds files but no recipe.yaml"):
        RunDirectory(recipe()).check()
