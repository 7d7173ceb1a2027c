"""The schema as JSON Schema, for editors: `make schema` writes `recipes/schema.json`, which every recipe names.

An editor sees one file, so nothing is required (a file that this one extends may have it), a null takes a value away,
and `training` has the fields of both stages. `olmoe-ft validate` is what decides.
"""

import json
from typing import Any

from olmoe_ft.recipe.schema import Recipe
from olmoe_ft.recipe.training_fields import CONFIG_NAMES, allowed_scalars, training_fields
from olmoe_ft.recipe.training_rules import OWNED

TYPES = {"int": "integer", "float": "number", "bool": "boolean", "str": "string", "None": "null"}
EXTENDS = {"type": ["string", "null"], "description": "A recipe to lay this one over, relative to this file."}


def json_schema() -> dict[str, Any]:
    """JSON Schema (2020-12) of a recipe file."""
    schema = Recipe.model_json_schema()
    sections = schema["$defs"]
    recipe = sections["Recipe"]
    benchmarks = sections["Data"]["properties"]["decontaminate_against"]
    benchmarks["items"] = {"anyOf": [{"type": "string"}, benchmarks["items"]]}  # a path alone
    recipe["properties"] |= {"extends": EXTENDS, "training": _training()}
    for section in sections.values():
        section.pop("required", None)
        section["properties"] = {name: _nullable(field) for name, field in section["properties"].items()}
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "$ref": "#/$defs/Recipe", "$defs": sections}


def _training() -> dict[str, Any]:
    fields: dict[str, dict[str, str]] = {}  # name -> configuration -> annotation
    for stage, config in CONFIG_NAMES.items():
        for name, annotation in training_fields(stage).items():
            if name not in OWNED:
                fields.setdefault(name, {})[config] = annotation
    return {
        "type": "object",
        "properties": {name: _training_field(annotations) for name, annotations in sorted(fields.items())},
        "additionalProperties": False,
        "description": Recipe.model_fields["training"].description,
    }


def _training_field(annotations: dict[str, str]) -> dict[str, Any]:
    """Of one field, by the configurations that have it; its type where that is one scalar or another for all."""
    description = "; ".join(f"{config}: {annotation}" for config, annotation in annotations.items())
    scalars = [allowed_scalars(annotation) for annotation in annotations.values()]
    types = sorted({TYPES[scalar] for names in scalars for scalar in names})
    return ({"type": types} if all(scalars) else {}) | {"description": description}


def _nullable(field: dict[str, Any]) -> dict[str, Any]:
    texts: dict[str, Any] = {key: field[key] for key in ("description", "default", "title") if key in field}
    rest = {key: value for key, value in field.items() if key not in texts}
    kinds = [kind for kind in rest.get("anyOf", [rest]) if kind != {"type": "null"}]
    return {"anyOf": [*kinds, {"type": "null"}], **texts}


if __name__ == "__main__":
    print(json.dumps(json_schema(), indent=1))
