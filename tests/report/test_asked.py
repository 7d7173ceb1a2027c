"""What was asked of a run: its recipe beside the shipped one and beside the defaults."""

import pytest
import yaml
from support.run_folders import blocks_of, make_run, recipe_of, table_of

from olmoe_ft.recipe import load_recipe
from olmoe_ft.report.files.recipe_origin import origin, overridden
from olmoe_ft.report.files.recipe_values import No, differing, values_of
from olmoe_ft.report.files.run_files import read_run
from olmoe_ft.report.page.blocks import Code, Prose
from olmoe_ft.report.sections.asked import asked, unit

DEFAULTS = "What differs from the defaults"


def launch(*words):
    return [{"command": ["accelerate", "launch", "--num_processes", "2", "-m", "olmoe_ft", "train", *words]}]


def test_the_recipe_that_the_command_named_and_its_overrides(tmp_path):
    """tiny/sft has a learning rate of 2e-3, 1,300 steps, weight 1; the command changes the first and the last."""
    overrides = ["training.learning_rate=1e-3", "data.train.0.weight=0.5"]
    run = make_run(
        tmp_path / "x",
        recipe_of("tiny/sft", *overrides, "name=mine"),
        launches=launch("recipes/tiny/sft.yaml", "--accept", "data", *overrides, "name=mine", "--fresh"),
    )
    section = asked(run)
    assert table_of(section, "What differs from tiny/sft") == [
        ["data.train.0.weight", "0.5 (of the rows; command line)", "1.0 (of the rows)"],
        ["training.learning_rate", "0.001 (command line)", "0.002"],
    ]
    assert section.lead == (
        "The command named the shipped recipe tiny/sft; values that differ: 2. Values that the command line set: 3."
    )
    assert ["training.learning_rate", "0.001 (command line)", "2e-05"] in table_of(section, DEFAULTS)


def test_the_nearest_shipped_recipe_where_none_was_named(tmp_path):
    """tiny/pipeline-lora has a first stage that is the same: then a recipe of one stage is the nearer one."""
    values = recipe_of("tiny/sft-lora", "name=other", "lora.r=4")
    run = make_run(tmp_path / "x", values, launches=launch("my.yaml"))
    section = asked(run)
    assert table_of(section, "What differs from the nearest shipped recipe, tiny/sft-lora") == [["lora.r", "4", "16"]]
    assert section.lead.startswith("The nearest shipped recipe is tiny/sft-lora; values that differ: 1.")


def test_a_recipe_that_is_like_the_shipped_one(tmp_path):
    run = make_run(tmp_path / "x", launches=launch("tiny/sft"))
    [prose] = [block for block in blocks_of(asked(run)) if isinstance(block, Prose)]
    assert prose.text == "Nothing but the name differs from tiny/sft."


@pytest.mark.parametrize("stage", [0, 1])
def test_the_stage_of_a_pipeline_that_the_command_named(tmp_path, stage):
    """An override of one stage is not the other's; one of all stages is both's."""
    overrides = ["stages.0.training.seed=3", "training.max_steps=7"]
    recipe = load_recipe("tiny/pipeline", overrides).runs[stage]
    run = make_run(tmp_path / "x", yaml.safe_load(recipe.to_yaml()), launches=launch("tiny/pipeline", *overrides))
    keys = ["training.seed", "training.max_steps"][stage:]
    assert overridden(run) == keys
    assert origin(run).name == "tiny/pipeline"
    assert sorted(key for key, *_ in origin(run).differing) == sorted(keys)


def test_no_shipped_recipe_is_of_that_stage(tmp_path):
    section = asked(make_run(tmp_path / "x", recipe_of() | {"stage": "future"}))
    assert section is not None and section.lead == ""
    assert ["training.learning_rate", "0.002", "unknown to this version"] in table_of(section, DEFAULTS)


def test_a_value_that_is_left_out_is_its_default():
    """TRL's `max_length` is 1,024, and the schema's `weight` is 1: the same recipe, written at length."""
    short = {"stage": "sft", "data": {"train": [{"path": "a"}]}, "training": {}}
    long = {"stage": "sft", "data": {"train": [{"path": "a", "weight": 1.0}]}, "training": {"max_length": 1024}}
    assert differing(values_of(short), values_of(long)) == []
    assert differing(values_of(short | {"training": {"max_length": None}}), values_of(long)) == [
        ("training.max_length", None, 1024)
    ]


def test_a_section_that_only_one_has_is_not_set_in_the_other():
    """No rank has a default, and a dropout of 0 is that of no adapters too."""
    lora = {"stage": "sft", "lora": {"r": 8, "dropout": 0.0}, "data": {"answers": {"path": "a", "max_new_tokens": 40}}}
    found = differing(values_of({"stage": "sft", "data": {}}), values_of(lora))
    assert found == [
        ("lora.r", No.VALUE, 8),
        ("lora.dropout", No.VALUE, 0.0),
        ("data.answers.path", No.VALUE, "a"),
        ("data.answers.max_new_tokens", No.VALUE, 40),
    ]


def test_only_values_that_are_not_the_default_are_listed(tmp_path):
    """Of this recipe: weight, repeat, split, dtype and `malformed` are defaults; the path must be chosen."""
    recipe = {
        "name": "x",
        "stage": "sft",
        "model": {"path": "a/b", "dtype": "bfloat16"},
        "data": {"train": [{"path": "c", "weight": 1.0, "repeat": 2, "split": "train"}], "malformed": "stop"},
        "training": {"max_length": 2048, "seed": 42, "warmup_steps": 0.1},
        "later": 1,
    }
    assert table_of(asked(make_run(tmp_path / "x", recipe)), DEFAULTS) == [
        ["model.path", "a/b", "null"],
        ["data.train.0.path", "c", "no default"],
        ["data.train.0.repeat", "2 (times an epoch)", "1 (times an epoch)"],
        ["training.max_length", "2048 (tokens)", "1024 (tokens)"],
        ["training.warmup_steps", "0.1 (of the steps)", "0 (steps)"],
        ["later", "1", "unknown to this version"],
    ]


def test_units():
    assert unit("training.save_steps", 100) == "steps" and unit("training.save_steps", 0.25) == "of the steps"
    assert unit("training.per_device_train_batch_size", 2) == "rows of a device"
    assert unit("data.answers.batch_size", 2) == "questions at once"
    assert unit("data.max_prompt_length", 9) == "tokens" and unit("training.packing", True) == ""
    assert unit("training.lr_scheduler_type", "cosine") == "" and unit("training.learning_rate", 1.0) == ""


def test_the_recipe_itself_is_folded(tmp_path):
    run = make_run(tmp_path / "x")
    [code] = [block for block in blocks_of(asked(run)) if isinstance(block, Code)]
    assert yaml.safe_load(code.text) == run.recipe


def test_a_run_without_a_recipe_has_no_such_section(tmp_path):
    (tmp_path / "metrics.jsonl").write_text('{"step": 1, "loss": 2.0}\n')
    assert asked(read_run(tmp_path)) is None
