"""No key of the schema is dead: another value gives another resolved run, and a plan or a run reads it."""

import json
import sys
from contextlib import chdir
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel
from support import REPOSITORY
from support.training_cases import Case, recipe_of, write_start

from olmoe_ft import pipeline
from olmoe_ft.planning.plan import make_plans
from olmoe_ft.recipe import Recipe, load_recipe
from olmoe_ft.recipe.data_section import Answers, Benchmark, Data, Source
from olmoe_ft.recipe.evaluation_section import EvaluationSection
from olmoe_ft.recipe.schema import Lora, Model, Router, Tracking
from olmoe_ft.recipe.section import Section

START: dict[str, Any] = {
    "name": "x",
    "stage": "sft",
    "model": {"path": "a/b"},
    "router": {"load_balancing_coef": 0.1, "z_loss_coef": 0.1, "train": "frozen"},
    "lora": {"r": 8, "alpha": 16, "attention": True, "experts": False},
    "data": {"train": [{"path": "a"}], "answers": {"path": "q"}, "decontaminate_against": ["p"]},
}
# Each field with another value than it has above or by default.
CHANGES: dict[type[Section], tuple[str, dict[str, Any]]] = {
    Recipe: (
        "",
        {
            "name": "y",
            "stage": "dpo",
            "model": {"path": "c/d"},
            "data": {"train": [{"path": "b"}]},
            "router": {"load_balancing_coef": 0.2, "z_loss_coef": 0.1, "train": "frozen"},
            "lora": {"r": 8, "alpha": 16, "attention": True, "experts": True},
            "training": {"max_steps": 3},
            "tracking": {"wandb": "off"},
            "evaluation": {"before": False},
        },
    ),
    Model: (
        "model",
        {
            "path": "c/d",
            "tokenizer": "t",
            "dtype": "float32",
            "quantization": "nf4",
            "attn_implementation": "eager",
            "config": {"path": None, "config": "c.json", "tokenizer": "t"},
        },
    ),
    Router: (
        "router",
        {
            "load_balancing_coef": 0.2,
            "z_loss_coef": 0.2,
            "scope": "pooled",
            "tokens": "all",
            "balance_over": "ranks",
            "train": "full",
        },
    ),
    Lora: (
        "lora",
        {
            "r": 4,
            "alpha": 8.0,
            "attention": {"attention": False, "experts": True},
            "experts": True,
            "dropout": 0.1,
            "use_rslora": True,
            "init_lora_weights": "gaussian",
        },
    ),
    Data: (
        "data",
        {
            "train": [{"path": "b"}],
            "eval": [{"path": "e"}],
            "answers": {"path": "r"},
            "max_prompt_length": 8,
            "long_prompts": "drop",
            "long_answers": "keep_end",
            "malformed": "drop",
            "max_dropped": 0.5,
            "decontaminate": True,
            "learn": "last_answer",
            "turn_marks": "obey",
            "decontaminate_against": ["r"],
            "cache": "c",
        },
    ),
    Source: (
        "data.train.0",
        {
            "path": "b",
            "weight": 0.5,
            "repeat": 2,
            "split": "test",
            "format": "text",
            "max_rows": 3,
            "columns": {"a": "text"},
            "ignore": ["label"],
            "labels": {"good": True},
            "config": "main",
            "revision": "v1",
        },
    ),
    Benchmark: (
        "data.decontaminate_against.0",
        {"path": "b", "columns": {"a": "question"}, "split": "train", "config": "main", "revision": "v1"},
    ),
    Answers: ("data.answers", {"path": "r", "max_new_tokens": 3, "batch_size": 2, "limit": 3}),
    EvaluationSection: (
        "evaluation",
        {
            "tasks": ["skills"],
            "suite": "olmoe",
            "before": False,
            "after": False,
            "every_steps": 5,
            "limit": 3,
            "batch_size": 2,
            "allow_code": True,
        },
    ),
    Tracking: ("tracking", {"wandb": "off", "project": "other"}),
}
FIELDS = [(section, name) for section in CHANGES for name in section.model_fields if name != "stages"]
PACKAGE = REPOSITORY / "olmoe_ft"


def start(name: str) -> Recipe:
    """Of a stage that knows the field."""
    return Recipe.model_validate(START | {"stage": "kto" if name == "labels" else "sft"})


def changed(section: type[Section], name: str) -> Recipe:
    place, changes = CHANGES[section]
    values = start(name).model_dump()
    del values["stages"]
    node: Any = values
    for part in place.split(".") if place else ():
        node = node[int(part) if part.isdecimal() else part]
    value = changes[name]
    node |= value if isinstance(value, dict) and name in value else {name: value}
    return Recipe.model_validate(values)


def test_every_section_is_asked_about():
    assert {section for section, _ in FIELDS} == {*Section.__subclasses__()}
    assert all(CHANGES[section][1].keys() >= {name} for section, name in FIELDS)


@pytest.mark.parametrize(("section", "name"), FIELDS, ids=lambda part: getattr(part, "__name__", part))
def test_another_value_gives_another_resolved_run(section, name):
    assert changed(section, name).to_yaml() != start(name).to_yaml()


@pytest.fixture(scope="module")
def read(tmp_path_factory) -> set[tuple[type[Section], str]]:
    """Section and name of each value that code outside olmoe_ft/recipe reads of a loaded recipe, in a plan and a run.

    A key that only its own check reads is dead. Another section's key of the same name does not count.
    """
    folder, found = tmp_path_factory.mktemp("read"), set()
    write_start(folder)
    rows, questions = (REPOSITORY / f"data/skills/{name}.jsonl" for name in ("train", "heldout"))
    (folder / "benchmark.jsonl").write_text(json.dumps({"question": "What is asked?", "answer": "this"}) + "\n")
    recipe = recipe_of(Case(form="lora"), folder) | {"tracking": {"wandb": "offline"}}
    recipe["data"] |= {
        "eval": [{"path": str(rows), "max_rows": 4}],
        "answers": {"path": str(questions), "limit": 2, "max_new_tokens": 2},
        "decontaminate_against": [{"path": str(folder / "benchmark.jsonl")}],
    }
    recipe["data"]["cache"] = str(folder / "cache")  # rows that another test has read would not be read again
    (folder / "recipe.yaml").write_text(json.dumps(recipe))

    def look(self: Section, name: str) -> Any:
        if name in type(self).model_fields:
            file = Path(sys._getframe(1).f_code.co_filename)
            if file.is_relative_to(PACKAGE) and not file.is_relative_to(PACKAGE / "recipe"):
                found.add((type(self), name))
        return BaseModel.__getattribute__(self, name)

    network, tokenizer = (REPOSITORY / name for name in ("configs/model/olmoe_tiny.json", "data/skills/tokenizer"))
    from_config = ("model.path=null", f"model.config={network}", f"model.tokenizer={tokenizer}")
    with chdir(folder), pytest.MonkeyPatch.context() as patch:
        loaded = load_recipe("recipe.yaml", ["training.optim=adamw_torch", "training.learning_rate=1e-3"])
        patch.setattr(Section, "__getattribute__", look, raising=False)
        make_plans(load_recipe("recipe.yaml", from_config))
        pipeline.run(loaded)
    return found


@pytest.mark.parametrize(("section", "name"), FIELDS, ids=lambda part: getattr(part, "__name__", part))
def test_a_plan_or_a_run_reads_it(read, section, name):
    assert (section, name) in read
