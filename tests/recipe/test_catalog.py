"""`olmoe-ft recipes`: what it lists, and copies that are right, say what each key does and train the same."""

import json
from pathlib import Path

import pytest
import yaml

from olmoe_ft.recipe import RecipeError, load_recipe
from olmoe_ft.recipe.catalog import config_names, copy, entries
from olmoe_ft.recipe.training_fields import help_of
from olmoe_ft.shipped import FILES, recipe_names


@pytest.mark.parametrize("name", recipe_names())
def test_a_copy_is_the_same_recipe(write, name):
    [file] = copy(name)
    text = file.read_text()
    assert "extends" not in yaml.safe_load(text) and max(map(len, text.splitlines())) <= 120
    assert load_recipe(file) == load_recipe(name)
    assert file.stem == load_recipe(name).name


@pytest.mark.parametrize("name", recipe_names())
def test_each_line_of_a_copy_says_what_its_key_does(write, name):
    """Behind it, or on the lines before it."""
    before = ""
    for line in copy(name)[0].read_text().splitlines()[1:]:
        if not line.lstrip().startswith("#"):
            said = line.partition("  # ")[2] or before.lstrip().startswith("#")
            assert said, line
        before = line


def test_a_copy_by_hand(write):
    """Sections, a list of sections, values; descriptions are the schema's and the trainer's first sentences."""
    lines = copy("tiny/dpo", "here/mine.yaml")[0].read_text().splitlines()
    assert lines[0] == f"# yaml-language-server: $schema={FILES}/recipes/schema.json"
    for line in (
        "# Supervised fine-tuning (sft), direct preference optimisation (dpo), Kahneman-Tversky optimisation (kto), or "
        "several",
        "stage: dpo",
        "data:  # What the stage learns from.",
        "  train:  # Sources that are mixed for training, at least one.",
        "    path: data/skills/heldout.jsonl  # File of rows, each with a prompt and an `answer`.",
        "  beta: 0.1  # Parameter controlling the deviation from the reference model.",
        "  loss_type: [sigmoid, sft]  # Type of loss to use.",
    ):
        assert line in lines
    lines = copy("tiny/sft")[0].read_text().splitlines()  # one whose comment is too long to go behind it
    place = lines.index("  train: full")
    assert lines[place - 1].startswith("  # The router's own weights: `full` trains them, `frozen` leaves them alone")


def test_help_of_a_field_is_that_of_the_class_that_defines_it_last():
    """TRL's `DPOConfig` has a help of its own for `learning_rate`, transformers the one for `seed`."""
    assert help_of("dpo", "learning_rate") == "The initial learning rate for AdamW."
    assert help_of("sft", "seed") == "Random seed that will be set at the beginning of training."
    assert help_of("sft", "beta") == ""


def test_nothing_is_overwritten(write):
    copy("tiny/sft")
    with pytest.raises(RecipeError, match="tiny-sft.yaml: the file exists already"):
        copy("tiny/sft")
    write("file", "")
    with pytest.raises(RecipeError, match="file/x.yaml: cannot be written"):
        copy("tiny/sft", "file/x.yaml")


@pytest.mark.parametrize("name", ["tiny/stf", "../recipes/tiny/sft", "configs/accelerate/zero4", "schema"])
def test_what_is_not_there_is_refused(write, name):
    with pytest.raises(RecipeError, match="olmoe_ft has no such recipe or configuration.*`olmoe-ft recipes` lists"):
        copy(name)
    assert not [*Path().iterdir()]


def test_a_machine_shape_brings_deepspeeds_file(write):
    """To the paths that it and the launch lines name. Two shapes share a file; another one of that name is kept."""
    assert [str(file) for file in copy("configs/accelerate/zero3")] == [
        "configs/deepspeed/zero3.json",
        "configs/accelerate/zero3.yaml",
    ]
    assert json.loads(Path("configs/deepspeed/zero3.json").read_text())["zero_optimization"]["stage"] == 3
    assert [str(file) for file in copy("configs/accelerate/multinode.yaml")] == ["configs/accelerate/multinode.yaml"]
    write("configs/deepspeed/zero2.json", "{}")
    with pytest.raises(RecipeError, match="configs/deepspeed/zero2.json: the file exists already"):
        copy("configs/accelerate/zero2")
    assert not Path("configs/accelerate/zero2.yaml").exists()
    with pytest.raises(RecipeError, match="keeps its path"):
        copy("configs/accelerate/gpu", "gpu.yaml")


@pytest.mark.parametrize("name", config_names())
def test_every_configuration_can_be_copied(write, name):
    for file in copy(name):
        assert file.read_bytes() == (FILES / file).read_bytes()


def test_the_list():
    """Recipes for the released model name their machine in the header's launch line; the tiny ones need none."""
    listed = {entry.name: entry for entry in entries()}
    assert [*listed] == recipe_names() and len(listed) >= 16
    assert listed["tiny/sft"][1:3] == ("sft", "a CPU")
    assert listed["tiny/sft"].description.startswith("A 2 M-parameter OLMoE learns seven skills from random weights")
    for name, entry in listed.items():
        assert entry.where == ("a CPU" if name.startswith("tiny/") else "8 GPUs (zero2)")
        assert entry.stage == load_recipe(name).stage and entry.description.endswith((".", "?"))
