"""The table of options: complete, its leads real, its document fresh; and what is told of options without effect."""

import dataclasses
import re
from pathlib import Path
from typing import get_args

import pytest
from pydantic import BaseModel

from olmoe_ft.recipe import RecipeError, load_recipe
from olmoe_ft.recipe.options.document import options_document
from olmoe_ft.recipe.options.hints import HINTS, PLACES
from olmoe_ft.recipe.options.table import KINDS, OPTIONS
from olmoe_ft.recipe.options.values import ABOVE, BELOW, CHOICES, LEAST, MOST
from olmoe_ft.recipe.schema import Recipe
from olmoe_ft.recipe.training_fields import training_fields
from olmoe_ft.recipe.training_rules import without_effect
from olmoe_ft.stages import STAGES

FIELDS = {name for stage in STAGES for name in training_fields(stage)}


def test_every_field_of_the_configurations_stands_in_the_table_once():
    """A field that a new TRL adds fails here, and is refused for users until it has been looked at."""
    import trl

    configs = [getattr(trl, stage.config) for stage in STAGES.values()]
    real = {field.name for config in configs for field in dataclasses.fields(config) if field.init}
    assert OPTIONS.keys() == real == FIELDS
    assert sum(len(options) for options in KINDS.values()) == len(OPTIONS)


def test_a_field_that_the_table_does_not_have_is_refused(good, monkeypatch):
    monkeypatch.delitem(OPTIONS, "weight_decay")
    with pytest.raises(
        RecipeError, match="training.weight_decay: is a field of a newer SFTConfig, which is untested here"
    ):
        load_recipe(good, ["training.weight_decay=0.1"])


def test_ranges_and_choices_are_of_options_that_are_obeyed():
    assert {*LEAST, *MOST, *ABOVE, *BELOW, *CHOICES} <= KINDS["obeyed"].keys()


def test_the_document_is_fresh():
    assert Path("docs/options.md").read_text() == options_document(), "run `make schema`"


def keys_of(model: type[BaseModel], prefix: str = "") -> set[str]:
    """Dotted names of all keys of a recipe; an item of a list has the number 0."""
    found: set[str] = set()
    for name, field in model.model_fields.items():
        found.add(f"{prefix}{name}")
        inside = [kind for kind in [field.annotation, *get_args(field.annotation)] if kind not in (model, Recipe)]
        for kind in inside:
            if isinstance(kind, type) and issubclass(kind, BaseModel):
                listed = field.annotation not in (kind, kind | None)
                found |= keys_of(kind, f"{prefix}{name}.0." if listed else f"{prefix}{name}.")
    return found


KEYS = keys_of(Recipe) | {f"training.{name}" for name in FIELDS if OPTIONS[name].kind == "obeyed"}


@pytest.mark.parametrize("place", HINTS)
def test_every_lead_names_keys_that_exist(place):
    """Each `word` or `word: value` of a text is a key of a recipe, or the command to use."""
    for name, text in HINTS[place].items():
        named = {re.split(r":| ", quoted)[0] for quoted in re.findall(r"`([^`]+)`", text)} - {"olmoe-ft", "-"}
        assert named <= KEYS, (name, named - KEYS)
        assert "`" in text or "remove it" in text or "instead" in text or "upload" in text, name


def test_no_lead_hides_a_key_of_our_own():
    for place, leads in HINTS.items():
        prefix = {"": "", "data.train": "data.train.0.", "data.eval": "data.eval.0."}.get(place, f"{place}.")
        assert not {f"{prefix}{name}" for name in leads} & KEYS
    names = [name for groups in PLACES[""] for name in groups.names.split()]
    assert len(names) == len(set(names)) >= 90


@pytest.mark.parametrize(
    ("override", "said"),
    [
        (
            "training.max_seq_length=8",
            "training.max_seq_length: there is no such field in TRL's SFTConfig; set `training.max_length`",
        ),
        ("training.rpo_alpha=1", "set `training.loss_type: [sigmoid, sft]` with `training.loss_weights"),
        ("training.attn_implementation=sdpa", "set `model.attn_implementation` instead"),
        ("training.lora_r=8", "set `lora.r` instead"),
        ("model.model_name_or_path=x", "model.model_name_or_path: there is no such key; set `model.path` instead"),
        ("model.load_in_4bit=true", "set `model.quantization: nf4` beside a `lora` section"),
        ("data.val_set_size=0.1", "name held-out rows in `data.eval`"),
        ("data.train.0.type=chat_template", "data.train.0.type: there is no such key; set `data.train.0.format`"),
        ("router.aux_loss_coef=0.1", "set `router.load_balancing_coef` instead"),
        ("tracking.entity=me", "tracking.entity: unknown key"),
        (
            "learning_rate=1e-5",
            "learning_rate: belongs to the section `training`; write it as `training.learning_rate`",
        ),
        ("base_model=x", "base_model: there is no such key; set `model.path` instead"),
        ("dtype=float32", "belongs to the section `model`; write it as `model.dtype`"),
    ],
)
def test_a_key_of_another_tool_is_answered_with_the_right_place(good, override, said):
    with pytest.raises(RecipeError, match=re.escape(said)) as error:
        load_recipe(good, [override])
    assert "did you mean" not in str(error.value) or "unknown key" in said


@pytest.mark.parametrize("name", ["base_model", "sequence_len", "lora_r", "val_set_size", "wandb_project", "rl"])
def test_the_top_level_of_a_file_too(write, good, name):
    with pytest.raises(RecipeError, match=f"top.yaml:2: {name}: there is no such key; ") as error:
        load_recipe(write("top.yaml", f"extends: good.yaml\n{name}: 1\n"))
    assert "did you mean" not in str(error.value)


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        ([], {}),
        (["training.do_train=true"], {"training.do_train": "`olmoe-ft train` always trains"}),
        (["training.do_train=false"], {}),
        (
            ["training.optim=sgd", "training.adam_beta1=0.5"],
            {"training.adam_beta1": "the optimizer sgd does not use it"},
        ),
        (["training.adam_beta1=0.5"], {}),
        (["training.save_strategy='no'", "training.save_steps=5"], {"training.save_steps": "save_strategy is no"}),
        (["training.save_steps=5"], {}),
        (
            ["training.logging_strategy=epoch", "training.logging_steps=5"],
            {"training.logging_steps": "logging_strategy is epoch"},
        ),
    ],
)
def test_what_has_no_effect_is_told(good, overrides, told):
    recipe = load_recipe(good, overrides)
    assert dict(without_effect("sft", recipe.model_dump())) == told


def test_dropout_of_adapters_in_dpo(good):
    """TRL turns it off there unless it is told not to."""
    adapters = ["stage=dpo", "lora={r: 8, alpha: 16, attention: true, experts: false, dropout: 0.1}"]
    [(key, reason)] = without_effect("dpo", load_recipe(good, adapters).model_dump())
    assert (key, reason) == ("lora.dropout", "training.disable_dropout is true, as it is by default in stage dpo")
    obeyed = load_recipe(good, [*adapters, "training.disable_dropout=false"])
    assert not list(without_effect("dpo", obeyed.model_dump()))
