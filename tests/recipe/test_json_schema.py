"""`recipes/schema.json`: fresh, and of one mind with `olmoe-ft validate` about what it can see."""

import json
import os
import re
from pathlib import Path

import jsonschema
import pytest
import yaml

from olmoe_ft.recipe.json_schema import json_schema
from olmoe_ft.recipe.yaml_file import read_document

RECIPES = sorted(Path("recipes").rglob("*.yaml"))
VALIDATOR = jsonschema.Draft202012Validator(json_schema())


def test_the_file_is_fresh():
    stored = json.loads(Path("recipes/schema.json").read_text())
    assert stored == json_schema(), "run `make schema`"
    jsonschema.Draft202012Validator.check_schema(stored)


@pytest.mark.parametrize("path", RECIPES, ids=str)
def test_every_recipe_names_it_and_keeps_it(path):
    first = path.read_text().splitlines()[0]
    [named] = re.fullmatch(r"# yaml-language-server: \$schema=(.*)", first).groups()
    assert os.path.normpath(path.parent / named) == "recipes/schema.json"
    VALIDATOR.validate(yaml.safe_load(path.read_text()))
    VALIDATOR.validate(read_document(path).values)


@pytest.mark.parametrize(
    "wrong",
    [
        {"trainig": {}},
        {"training": {"learnig_rate": 1}},
        {"training": {"max_steps": "ten"}},
        {"training": {"output_dir": "x"}},
        {"router": {"scope": "layers"}},
        {"data": {"train": [{"path": "a", "weight": 2}]}},
        {"data": {"train": [{"path": "a", "wieght": 1}]}},
        {"lora": {"r": 0}},
        {"stages": [{"stage": "grpo"}]},
    ],
    ids=str,
)
def test_what_an_editor_marks(wrong):
    assert not VALIDATOR.is_valid(wrong)


def test_what_it_leaves_alone():
    """A file that extends another may be short, and a null takes a value away."""
    right = {"extends": "other.yaml", "lora": None, "router": {"train": "frozen"}, "training": {"beta": 1}}
    assert VALIDATOR.is_valid(right)
