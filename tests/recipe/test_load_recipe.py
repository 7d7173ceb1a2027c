"""Recipes that are right: values, defaults, `extends`, overrides, the way back to YAML."""

import pickle
import subprocess
import sys
from pathlib import Path

import pydantic
import pytest

from olmoe_ft.recipe import Recipe, RecipeError, load_recipe
from olmoe_ft.recipe.yaml_file import dump_yaml, parse_value

SOURCE = {
    "repeat": 1,
    "split": "train",
    "format": None,
    "max_rows": None,
    "columns": {},
    "ignore": (),
    "labels": {},
    "config": None,
    "revision": None,
}


def test_values_and_defaults(good):
    recipe = load_recipe(good)
    assert recipe.model_dump() == {
        "name": "good",
        "stage": "sft",
        "model": {
            "path": "runs/base",
            "config": None,
            "tokenizer": None,
            "dtype": "bfloat16",
            "quantization": None,
            "attn_implementation": "sdpa",
        },
        "data": {
            "train": (
                {"path": "a.jsonl", "weight": 1.0, **SOURCE},
                {"path": "b.jsonl", "weight": 0.2, **SOURCE},
            ),
            "eval": (),
            "answers": None,
            "learn": "all_answers",
            "turn_marks": "refuse",
            "max_prompt_length": None,
            "long_prompts": "keep_start",
            "long_answers": "keep_start",
            "malformed": "stop",
            "max_dropped": 0.01,
            "decontaminate_against": (),
            "decontaminate": False,
            "cache": None,
        },
        "router": {
            "load_balancing_coef": 0.01,
            "z_loss_coef": 0.001,
            "scope": "layer",
            "tokens": "non_padding",
            "balance_over": "micro_batch",
            "train": "full",
        },
        "lora": None,
        "training": {"learning_rate": 2e-5, "max_length": None},
        "tracking": {"wandb": "auto", "project": "olmoe_ft"},
        "evaluation": {
            "tasks": (),
            "suite": None,
            "before": True,
            "after": True,
            "every_steps": None,
            "limit": None,
            "batch_size": 64,
            "allow_code": False,
        },
        "stages": (),
    }
    assert recipe.run_dir == Path("runs/good")


def test_a_recipe_cannot_change(good):
    recipe = load_recipe(good)
    with pytest.raises(pydantic.ValidationError):
        recipe.name = "other"
    with pytest.raises(pydantic.ValidationError):
        recipe.router.z_loss_coef = 0.0
    with pytest.raises(AttributeError):
        recipe.data.train.append(recipe.data.train[0])


def test_a_recipe_built_in_python_keeps_the_rules(good):
    values = load_recipe(good).model_dump()
    with pytest.raises(pydantic.ValidationError, match="training.beta: is a field of DPOConfig"):
        Recipe.model_validate(values | {"training": {"beta": 0.1}})


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("2e-5", 2e-5),
        ("5E-7", 5e-7),
        ("-1.5e+3", -1500.0),
        (".5", 0.5),
        ("3", 3),
        ("1_000", 1000),
        ("012", "012"),  # YAML 1.1: octal, 10
        ("1:30", "1:30"),  # YAML 1.1: base 60, 90
        ("2024-01-01", "2024-01-01"),  # YAML 1.1: a date
        ("e5", "e5"),
        ("1e", "1e"),
        ("true", True),
        ("", None),
        ("[1, 1e-3]", [1, 1e-3]),
    ],
)
def test_yaml_values(text, value):
    read = parse_value(text)
    assert read == value and type(read) is type(value)
    assert parse_value(dump_yaml({"key": value})) == {"key": value}


def test_texts_that_look_like_numbers_are_written_in_quotes():
    texts = {"a": "2e-5", "b": "3", "c": "off", "d": "null", "e": "1e5"}
    assert parse_value(dump_yaml(texts)) == texts


def test_bare_off_is_the_word(good, write):
    assert load_recipe(good, ["tracking.wandb=off"]).tracking.wandb == "off"
    assert load_recipe(write("off.yaml", "extends: good.yaml\ntracking: {wandb: off}\n")).tracking.wandb == "off"


def test_extends_merges_sections_and_replaces_lists(good, write):
    """`extends` is relative to the file that names it; a null takes the parent's value away."""
    write(
        "deep/middle.yaml",
        "extends: ../good.yaml\nname: middle\nlora: {r: 8, alpha: 16, attention: true, experts: true}\n",
    )
    child = write(
        "child.yaml",
        "extends: deep/middle.yaml\nlora: null\nmodel: {path: null, config: m.json, tokenizer: t}\n"
        "data: {train: [{path: c.jsonl}]}\ntraining: {learning_rate: null, seed: 7}\n",
    )
    recipe = load_recipe(child)
    assert recipe.name == "middle"
    assert recipe.lora is None
    assert (recipe.model.path, recipe.model.config, recipe.model.tokenizer) == (None, "m.json", "t")
    assert [source.path for source in recipe.data.train] == ["c.jsonl"]
    # null is a value of max_length (no truncation), and takes learning_rate, which knows no null, away
    assert recipe.training == {"max_length": None, "seed": 7}


def test_overrides(good):
    recipe = load_recipe(
        good,
        [
            "name=other",
            "training.learning_rate=1e-4",
            "training.max_steps=2",
            "data.train.1.weight=0.5",
            "data.train.0={path: c.jsonl, format: alpaca}",
            "lora={r: 4, alpha: 8, attention: true, experts: false}",
            "lora.dropout=0.1",
            "tracking.project=a=b",
        ],
    )
    assert recipe.name == "other"
    assert recipe.training == {"learning_rate": 1e-4, "max_length": None, "max_steps": 2}
    assert [(source.path, source.weight) for source in recipe.data.train] == [("c.jsonl", 1.0), ("b.jsonl", 0.5)]
    assert recipe.lora is not None and (recipe.lora.r, recipe.lora.dropout) == (4, 0.1)
    assert recipe.tracking.project == "a=b"


def test_an_override_repairs_what_the_file_has_wrong(write, good):
    broken = write("broken.yaml", "extends: good.yaml\ntraining: {max_steps: many}\n")
    assert load_recipe(broken, ["training.max_steps=5"]).training["max_steps"] == 5


def test_round_trip(good, write):
    recipe = load_recipe(good, ["tracking.project='1e-3'", "tracking.wandb=off", "data.answers={path: h.jsonl}"])
    assert load_recipe(write("again.yaml", recipe.to_yaml())) == recipe
    assert recipe.tracking.project == "1e-3"


def test_error_holds_its_messages():
    error = RecipeError(["first", "second"])
    assert error.messages == ["first", "second"] and str(error) == "first\nsecond"
    assert str(RecipeError("one")) == "one"
    assert pickle.loads(pickle.dumps(error)).messages == error.messages


def test_validating_imports_no_torch(good):
    program = (
        "import sys; from olmoe_ft.recipe import load_recipe; load_recipe(sys.argv[1]); "
        "print({'torch', 'transformers', 'trl'} & sys.modules.keys())"
    )
    done = subprocess.run([sys.executable, "-c", program, good], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (0, "set()\n"), done.stderr
