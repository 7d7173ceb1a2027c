"""The values of a recipe by their dotted keys, beside the defaults of their fields. No value is checked here, so that
recipes of other versions are read too."""

import json
from collections.abc import Iterator, Mapping
from enum import Enum
from typing import Any, NamedTuple, get_args

from pydantic.fields import FieldInfo

from olmoe_ft.recipe.schema import Recipe
from olmoe_ft.recipe.section import Section
from olmoe_ft.recipe.training_fields import default_of, training_fields
from olmoe_ft.stages import STAGES

CUT = 200  # characters of a value


class No(Enum):
    """In the place of a value."""

    DEFAULT = "no default"
    FIELD = "unknown to this version"
    VALUE = "not set"


class Value(NamedTuple):
    """What a recipe has for a key."""

    value: Any
    default: Any
    """That of the field; `No.DEFAULT` where each recipe must choose, `No.FIELD` where there is no such field."""
    optional: bool
    """Whether it is in a section that a recipe may lack, or in an item of a list: such have no default as a whole."""


Values = Mapping[str, Value]  # by dotted key; items of a list by their place: `data.train.0.path`


def values_of(recipe: Mapping[str, Any]) -> Values:
    """All values of a resolved recipe of one stage, in its order; not its name and stage."""
    found = _leaves(recipe, Recipe, str(recipe.get("stage")), "", False)
    return {key: value for key, value in found if key not in ("name", "stage")}


def not_defaults(values: Values) -> list[tuple[str, Value]]:
    """Those that are not their field's default."""
    return [(key, one) for key, one in values.items() if one.value != one.default]


def differing(one: Values, other: Values) -> list[tuple[str, Any, Any]]:
    """The keys of two recipes with other values, and both. A value that is left out is its field's default."""
    keys = dict.fromkeys((*one, *other))
    found = [(key, value_in(key, one, other), value_in(key, other, one)) for key in keys]
    return [(key, mine, theirs) for key, mine, theirs in found if mine != theirs]


def shown_value(value: Any) -> str:
    """As YAML would have it on one line."""
    if isinstance(value, No):
        return value.value
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= CUT else f"{text[:CUT]}…"


def _leaves(
    values: Mapping[str, Any], section: type[Any], stage: str, prefix: str, optional: bool
) -> Iterator[tuple[str, Value]]:
    for name, value in values.items():
        key, field = f"{prefix}{name}", section.model_fields.get(name)
        inner = _section_in(field.annotation) if field is not None else None
        if key == "training" and isinstance(value, Mapping):
            yield from ((f"training.{of}", Value(one, of_trainer(stage, of), False)) for of, one in value.items())
        elif inner is not None and isinstance(value, Mapping):
            may_lack = field is not None and type(None) in get_args(field.annotation)
            yield from _leaves(value, inner, stage, f"{key}.", optional or may_lack)
        elif inner is not None and isinstance(value, list) and all(isinstance(one, Mapping) for one in value) and value:
            for place, one in enumerate(value):
                yield from _leaves(one, inner, stage, f"{key}.{place}.", True)
        else:
            yield key, Value(value, _default(field), optional)


def _section_in(annotation: Any) -> type[Section] | None:
    """The section that a field holds, once or several times."""
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return annotation
    return next((found for one in get_args(annotation) if (found := _section_in(one)) is not None), None)


def _default(field: FieldInfo | None) -> Any:
    if field is None:
        return No.FIELD
    if field.is_required():
        return No.DEFAULT
    found = field.get_default(call_default_factory=True, validated_data={})
    return list(found) if isinstance(found, tuple) else found  # as YAML has it


def of_trainer(stage: str, name: str) -> Any:
    """The default of a field of a stage's trainer; `No.FIELD` where it has no such field."""
    if stage not in STAGES or name not in training_fields(stage):
        return No.FIELD
    return default_of(stage, name)


def value_in(key: str, own: Values, others: Values) -> Any:
    """A recipe's value of a key that it or another one has."""
    if key in own:
        return own[key].value
    section = key.rpartition(".")[0]
    if others[key].optional and not any(name.startswith(f"{section}.") for name in own):
        return No.VALUE
    default = others[key].default
    return No.VALUE if isinstance(default, No) else default
