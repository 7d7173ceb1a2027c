"""The fields read from TRL's source are the fields of its classes."""

import dataclasses
import re
from typing import get_args

import pytest

from olmoe_ft.recipe import RecipeError, load_recipe
from olmoe_ft.recipe.training_fields import SCALARS, allowed_scalars, default_of, fits, training_fields
from olmoe_ft.recipe.training_rules import ELSEWHERE, OWNED


@pytest.mark.parametrize("stage", ["sft", "dpo"])
def test_fields_are_those_of_the_dataclass(stage):
    import trl

    config = {"sft": trl.SFTConfig, "dpo": trl.DPOConfig}[stage]
    real = {field.name: field.type for field in dataclasses.fields(config) if field.init}
    parsed = training_fields(stage)
    assert parsed.keys() == real.keys()
    for name, annotation in parsed.items():
        if allowed := allowed_scalars(annotation):
            kinds = {"None" if kind is type(None) else kind.__name__ for kind in get_args(real[name]) or (real[name],)}
            assert set(allowed) == kinds, name


@pytest.mark.parametrize("stage", ["sft", "dpo"])
def test_defaults_are_those_of_the_dataclass(stage):
    import trl

    config = {"sft": trl.SFTConfig, "dpo": trl.DPOConfig}[stage]
    real = {field.name: field.default for field in dataclasses.fields(config)}
    for name in ("max_length", "learning_rate", "packing" if stage == "sft" else "beta"):
        assert default_of(stage, name) == real[name]


def test_owned_fields_exist():
    """A field that TRL has renamed would otherwise be refused under a name that nobody writes."""
    assert OWNED.keys() <= training_fields("sft").keys() | training_fields("dpo").keys()


@pytest.mark.parametrize(
    ("annotation", "good", "bad"),
    [
        ("int", [3], [2.5, True, "3", None, [3]]),
        ("float", [3, 2.5], [True, "fast", None, float("nan"), float("inf")]),
        ("bool", [True], [1, "yes", None]),
        ("str", ["a"], [1, True]),
        ("float | None", [1, None], ["1", {}]),
        ("str | bool", ["a", False], [1]),
        ("SchedulerType | str", ["cosine", 3], []),  # more than scalars: left to TRL
        ("dict[str, Any] | str | None", [{}, "a"], []),
    ],
)
def test_scalar_types(annotation, good, bad):
    assert all(fits(value, annotation) for value in good)
    assert not any(fits(value, annotation) for value in bad)
    assert set(allowed_scalars(annotation)) <= SCALARS.keys()


def test_leads_elsewhere_name_fields_that_exist():
    """Names of other tools lead to fields of TRL; once TRL has such a name itself, there is no need to lead away."""
    fields = training_fields("sft").keys() | training_fields("dpo").keys()
    assert not ELSEWHERE.keys() & fields
    for lead in ELSEWHERE.values():
        named = set(re.findall(r"`([a-z_]+)[`:]", lead)) - {"tracking"}
        assert named <= fields, lead


def test_a_name_of_another_tool_is_answered_with_the_right_place(good):
    for name, said in (
        ("max_prompt_length", "set `data.max_prompt_length`"),
        ("rpo_alpha", "loss_type: [sigmoid, sft]"),
    ):
        with pytest.raises(RecipeError, match=re.escape(said)) as error:
            load_recipe(good, [f"training.{name}=1"])
        assert "did you mean" not in str(error.value)
