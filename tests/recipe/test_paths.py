"""Where the files of a recipe are looked up: beside it, from the working folder, among those of the package."""

import os
from pathlib import Path

import pytest
from pydantic import BaseModel

from olmoe_ft.recipe import RecipeError, load_recipe
from olmoe_ft.recipe.data_section import Answers, Benchmark, Data, Source
from olmoe_ft.recipe.paths import PATHS, sought
from olmoe_ft.recipe.schema import Model
from olmoe_ft.shipped import FILES, recipe_names

GOOD = """\
name: good
stage: sft
model: {config: configs/model/olmoe_tiny.json, tokenizer: tokens}
router: {load_balancing_coef: 0.01, z_loss_coef: 0.001, train: full}
data:
  train: [{path: a.jsonl}, {path: b.jsonl}]
  eval: [{path: e.jsonl}]
  answers: {path: q.jsonl}
  decontaminate_against: [p.jsonl, {path: d.jsonl}]
"""
NAMES = ("a.jsonl", "b.jsonl", "e.jsonl", "q.jsonl", "p.jsonl", "d.jsonl")


def paths(recipe) -> list[str]:
    data = recipe.data
    sources = [source.path for source in (*data.train, *data.eval, data.answers, *data.decontaminate_against)]
    return [recipe.model.path or recipe.model.config, recipe.model.tokenizer, *sources]


@pytest.fixture
def beside(write):
    """A recipe in a folder of its own, with its files beside it; all but b.jsonl."""
    for name in ("tokens/tokenizer.json", *(name for name in NAMES if name != "b.jsonl")):
        write(f"my/{name}", "")
    return write("my/good.yaml", GOOD)


def test_files_beside_the_recipe_come_before_those_of_the_working_folder(beside, write):
    write("a.jsonl", "")
    write("b.jsonl", "")
    assert paths(load_recipe(beside))[1:] == ["my/tokens", "my/a.jsonl", "b.jsonl", *(f"my/{n}" for n in NAMES[2:])]


def test_files_of_tasks_are_looked_up_too(beside, write):
    """Task files, files of rows, and those behind a task's name; the name itself stays."""
    for name in ("t.yaml", "rows.jsonl"):
        write(f"my/{name}", "")
    tasks = "evaluation: {tasks: [t.yaml, rows.jsonl, skills, number_rows=rows.jsonl, gone.yaml=gone.csv]}\n"
    file = write("my/with_tasks.yaml", GOOD + tasks)
    assert load_recipe(file).evaluation.tasks == (
        "my/t.yaml", "my/rows.jsonl", "skills", "number_rows=my/rows.jsonl", "gone.yaml=gone.csv",
    )  # fmt: skip


def test_however_the_recipe_is_named_its_paths_are_the_same(beside, tmp_path, monkeypatch):
    """The run directory keeps them, and the same run goes on with `./my/good.yaml`; elsewhere they are absolute."""
    first = load_recipe(beside).to_yaml()
    assert load_recipe(f"./{beside}").to_yaml() == load_recipe(tmp_path / beside).to_yaml() == first
    (tmp_path / "other").mkdir()
    monkeypatch.chdir(tmp_path / "other")
    assert paths(load_recipe(f"../{beside}"))[2] == str(tmp_path / "my/a.jsonl")


def test_in_the_folder_of_the_recipe_paths_stay_as_they_are_written(beside, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path / "my")
    recipe = load_recipe("good.yaml", ["data.train.0.path=./a.jsonl"])
    assert paths(recipe)[1:4] == ["tokens", "./a.jsonl", "b.jsonl"]
    assert paths(load_recipe(tmp_path / "my/good.yaml"))[1:4] == ["tokens", "a.jsonl", "b.jsonl"]


def test_each_path_is_looked_up_beside_the_file_that_wrote_it(beside, write):
    """`extends` brings the paths of the file it names; a value of the command line is of the working folder."""
    write("mine/c.jsonl", "")
    write("mine/q.jsonl", "")
    child = write("mine/child.yaml", "extends: ../my/good.yaml\ndata: {train: [{path: c.jsonl}, {path: a.jsonl}]}\n")
    recipe = load_recipe(child)
    assert [source.path for source in recipe.data.train] == ["mine/c.jsonl", "a.jsonl"]
    assert recipe.data.answers.path == "my/q.jsonl"
    assert load_recipe(child, ["data.answers.path=q.jsonl"]).data.answers.path == "q.jsonl"
    assert load_recipe(child, ["data.answers={path: q.jsonl}"]).data.answers.path == "q.jsonl"


def test_a_stage_of_a_pipeline_looks_beside_the_files_it_is_made_of(beside, write):
    write("pipes/pairs.jsonl", "")
    for folder in ("pipes/runs/p/sft", "pipes/runs/start", "runs/other"):
        Path(folder).mkdir(parents=True)
    stage = "{stage: dpo, data: {train: [{path: pairs.jsonl}], eval: null, answers: null}"
    text = f"name: p\nstage: pipeline\nstages:\n  - extends: ../my/good.yaml\n  - {stage}, router: ROUTER}}\n"
    router = "{load_balancing_coef: 0, z_loss_coef: 0, train: full}"
    sft, dpo = load_recipe(write("pipes/p.yaml", text.replace("ROUTER", router))).stages
    assert sft.data.train[0].path == "my/a.jsonl" and dpo.data.train[0].path == "pipes/pairs.jsonl"
    assert dpo.model.path == "runs/p/sft"  # the pipeline's own run is below the working folder
    for name, path in (("runs/p/sft", "runs/p/sft"), ("runs/start", "pipes/runs/start"), ("runs/other", "runs/other")):
        given = text.replace("ROUTER", f"{router}, model: {{path: {name}}}")
        assert load_recipe(write("pipes/p.yaml", given)).stages[1].model.path == path


def test_shipped_files_are_the_last_resort_and_keep_their_names(write):
    """Their paths differ from one installation to the next; what the run directory keeps does not."""
    recipe = load_recipe("tiny/sft")
    assert paths(recipe)[:3] == [
        str(FILES / name)
        for name in ("configs/model/olmoe_tiny.json", "data/skills/tokenizer", "data/skills/train.jsonl")
    ]
    assert "config: configs/model/olmoe_tiny.json\n" in recipe.to_yaml() and str(FILES) not in recipe.to_yaml()
    assert load_recipe(write("runs/tiny-sft/recipe.yaml", recipe.to_yaml())) == recipe
    write("data/skills/train.jsonl", "")
    assert load_recipe("tiny/sft").data.train[0].path == "data/skills/train.jsonl"


def test_hub_names_stay_as_they_are(write):
    recipe = load_recipe("olmoe-1b-7b-0924/sft/full")
    assert recipe.model.path == recipe.model.tokenizer == "allenai/OLMoE-1B-7B-0924"
    assert recipe.data.train[0].path == "allenai/tulu-v3.1-mix-preview-4096-OLMoE"


def test_what_is_not_there_was_looked_for_everywhere(beside, tmp_path):
    load_recipe(beside)
    assert sought("b.jsonl") == f"looked for my/b.jsonl (beside the recipe) and {tmp_path}/b.jsonl"
    end = f"{tmp_path}/configs/none.json and the files that come with olmoe_ft"
    assert sought("configs/none.json") == f"looked for {end}"
    assert sought("/none") == "looked for /none"


@pytest.mark.parametrize("name", recipe_names())
def test_every_shipped_recipe_is_right_by_its_name(write, name):
    recipe = load_recipe(name)
    assert load_recipe(f"recipes/{name}.yaml") == recipe
    for stage in recipe.runs:
        written = [path for path in paths_of(stage) if path and os.path.isabs(path)]
        assert all(Path(path).exists() for path in written)


def paths_of(stage) -> list[str | None]:
    answers = [stage.data.answers.path] if stage.data.answers else []
    return [stage.model.config, stage.model.tokenizer, *answers, *(source.path for source in stage.data.train)]


def test_a_file_of_that_name_wins(write):
    write("tiny/sft", GOOD)
    assert load_recipe("tiny/sft").name == "good"


def test_a_recipe_extends_a_shipped_one(write):
    assert load_recipe(write("my.yaml", "extends: tiny/sft\nname: mine\n")).training["max_steps"] == 1300
    write("tiny/sft.yaml", GOOD)
    assert load_recipe(write("my.yaml", "extends: tiny/sft.yaml\n")).name == "good"


@pytest.mark.parametrize(
    ("parent", "hint"),
    [
        ("../recipes/tiny/sft.yaml", "my/my.yaml:1: extends: recipes/tiny/sft.yaml: there is no such file; the path is "
         "relative to my/. To extend the recipe that comes with olmoe_ft, write `extends: tiny/sft`"),
        ("tiny/stf", "my/tiny/stf: there is no such file; the path is relative to my/ (did you mean `tiny/sft`?)"),
    ],
)  # fmt: skip
def test_a_parent_that_is_not_there(write, parent, hint):
    with pytest.raises(RecipeError) as error:
        load_recipe(write("my/my.yaml", f"extends: {parent}\n"))
    assert hint in str(error.value)


def test_no_path_of_the_schema_is_left_out():
    """Every field that is called `path`, or names a file of the model. `data.cache` is written, not read."""
    sections: dict[str, type[BaseModel]] = {
        "model": Model,
        "data.train.*": Source,
        "data.eval.*": Source,
        "data.answers": Answers,
        "data.decontaminate_against.*": Benchmark,
    }
    named = {f"{key}.path" for key, section in sections.items() if "path" in section.model_fields}
    assert named | {"model.config", "model.tokenizer", "data.decontaminate_against.*"} == {*PATHS}
    assert [name for name in Data.model_fields if "Folder" in (Data.model_fields[name].description or "")] == ["cache"]
