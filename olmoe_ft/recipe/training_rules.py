"""Check the `training` section: TRL's fields and their values, by the table of options."""

from collections.abc import Iterator, Mapping
from typing import Any

from olmoe_ft.recipe.metrics import broken_metric
from olmoe_ft.recipe.options.combinations import broken_combinations, unread
from olmoe_ft.recipe.options.given import Given
from olmoe_ft.recipe.options.hints import hint
from olmoe_ft.recipe.options.table import OPTIONS
from olmoe_ft.recipe.options.values import CHOICES, wrong_number
from olmoe_ft.recipe.training_fields import (
    SCALARS,
    accepts_null,
    allowed_scalars,
    default_of,
    fits,
    training_choices,
    training_fields,
)
from olmoe_ft.recipe.wording import Problem, nearest, shown
from olmoe_ft.stages import STAGES

SECTIONS = ("lr_scheduler_kwargs", "gradient_checkpointing_kwargs", "activation_checkpointing_kwargs")


def broken_training(stage: str, values: Mapping[str, Any]) -> Iterator[Problem]:
    """Every mistake in the `training` section of a recipe, which may even not be a section."""
    options = without_absent(stage, values.get("training"))
    wrong = {name: found for name, value in options.items() if (found := list(_broken_option(stage, name, value)))}
    for name, problems in wrong.items():
        yield from ((f"training.{name}", problem) for problem in problems)
    for name, problem in broken_combinations(_given(stage, values, options, frozenset(wrong))):
        yield f"training.{name}", problem
    yield from broken_metric(stage, {name: value for name, value in options.items() if name not in wrong})


def without_effect(stage: str, values: Mapping[str, Any]) -> Iterator[Problem]:
    """Options of a valid recipe that change nothing."""
    given = _given(stage, values, without_absent(stage, values.get("training")))
    for name in given.values:
        if OPTIONS[name].kind == "no effect" and given.changed(name):
            yield f"training.{name}", OPTIONS[name].text
    for name, reason in unread(given):
        yield f"training.{name}", reason
    yield from STAGES[stage].without_effect(given, values)


def without_absent(stage: str, training: Any) -> dict[str, Any]:
    """The `training` section without the nulls that only remove what an extended file has set.

    A null is kept if it is a value of the field (`max_length: null` truncates nothing) or if the key is wrong anyway.
    """
    if not isinstance(training, Mapping):
        return {}
    fields = training_fields(stage)
    absent = {name for name in fields if _kind(name) != "set" and not accepts_null(fields[name])}
    return {name: value for name, value in training.items() if value is not None or name not in absent}


def _given(
    stage: str, values: Mapping[str, Any], options: Mapping[str, Any], wrong: frozenset[str] = frozenset()
) -> Given:
    model, data = values.get("model"), values.get("data")
    return Given(
        stage,
        options,
        lora=values.get("lora") is not None,
        dtype=str(model.get("dtype") or "bfloat16") if isinstance(model, Mapping) else "bfloat16",
        evaluation=bool(data.get("eval")) if isinstance(data, Mapping) else False,
        wrong=wrong,
    )


def _kind(name: str) -> str | None:
    return OPTIONS[name].kind if name in OPTIONS else None


def _broken_option(stage: str, name: str, value: Any) -> Iterator[str]:
    """What is wrong with one option by itself."""
    fields = training_fields(stage)
    if _kind(name) == "set":
        yield f"found {shown(value)}; a recipe cannot set this field: {OPTIONS[name].text}"
    elif name not in fields:
        yield _unknown(stage, name)
    elif _kind(name) is None:
        yield f"is a field of a newer {STAGES[stage].config}, which is untested here; remove it"
    elif _kind(name) == "refused":
        default = default_of(stage, name)
        off = value is False and default is None and "bool" in fields[name]
        if not off and (value != default or type(value) is not type(default)):
            yield f"found {shown(value)}; {OPTIONS[name].text}"
    elif not fits(value, fields[name]):
        allowed = " or ".join(SCALARS[kind] for kind in allowed_scalars(fields[name]))
        yield f"found {shown(value)}; allowed: {allowed} ({STAGES[stage].config}: {fields[name]})"
    elif name in SECTIONS and not isinstance(value, Mapping | None):
        yield f"found {shown(value)}; allowed: a section (`key: value` on each line)"
    else:
        yield from _unknown_choice(stage, name, value)
        yield from wrong_number(name, value)


def _unknown_choice(stage: str, name: str, value: Any) -> Iterator[str]:
    choices = CHOICES.get(name) or training_choices(stage).get(name)
    several = isinstance(value, list) and "list" in training_fields(stage)[name]
    for one in (value if several else [value]) if choices else ():
        assert choices is not None
        if name == "train_sampling_strategy" and one == "batch_rebalance":
            yield (
                'found "batch_rebalance", which makes micro-batches of different sizes that count the same; choose '
                "group_by_length"
            )
        elif one is None or one in choices:
            continue
        elif one is False and "no" in choices:
            yield 'found false, because YAML reads a bare no as false; write "no" in quotes'
        else:
            names = [choice for choice in choices if isinstance(choice, str)]
            suggestion = nearest(one, names) if isinstance(one, str) else ""
            yield f"found {shown(one)}{suggestion}; allowed: {', '.join(names)}"


def _unknown(stage: str, name: str) -> str:
    if others := [other for other in STAGES if name in training_fields(other)]:
        configs = ", ".join(f"{STAGES[other].config} (stage {other})" for other in others)
        return f"is a field of {configs} only; this stage is {stage}: remove it"
    if (lead := hint("training", name)) is not None:
        return f"there is no such field in TRL's {STAGES[stage].config}; {lead}"
    free = [field for field in training_fields(stage) if _kind(field) in ("obeyed", "no effect")]
    return (
        f"unknown key{nearest(name, free)}; allowed: the fields of TRL's {STAGES[stage].config}, listed in "
        "docs/options.md"
    )
