"""The fields read from TRL's source are the fields of its classes."""

import dataclasses
from typing import get_args

import pytest

from olmoe_ft.recipe.training_fields import SCALARS, allowed_scalars, default_of, fits, training_fields


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
    missing = dataclasses.MISSING
    for field in dataclasses.fields(config):
        if field.init:
            real = field.default_factory() if field.default_factory is not missing else field.default
            assert default_of(stage, field.name) == real, field.name


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
