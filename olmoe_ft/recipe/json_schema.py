"""The schema as JSON Schema, for editors: `make schema` writes `recipes/schema.json`, which every recipe names.

An editor sees one file, so nothing is required (a file that this one extends may have it), a null removes a value,
and `training` has the fields of both stages. `olmoe-ft validate` has the last word.
"""

import json
from typing import Any

from olmoe_ft.recipe.options.table import OPTIONS
from olmoe_ft.recipe.schema import Recipe
from olmoe_ft.recipe.training_fields import allowed_scalars, default_of, training_fields
from olmoe_ft.stages import STAGES

TYPES = {"int": "integer", "float": "number", "bool": "boolean", "str": "string", "None": "null"}
EXTENDS = {
    "type": ["string", "null"],
    "description": "The recipe that this one builds on: a path relative to this file, or the name of one that comes "
    "with the package, such as tiny/sft.",
}


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
    fields: dict[str, dict[str, str]] = {}  # name -> stage -> annotation
    for stage in STAGES:
        for name, annotation in training_fields(stage).items():
            if name in OPTIONS and OPTIONS[name].kind != "set":
                fields.setdefault(name, {})[stage] = annotation
    return {
        "type": "object",
        "properties": {name: _training_field(name, annotations) for name, annotations in sorted(fields.items())},
        "additionalProperties": False,
        "description": Recipe.model_fields["training"].description,
    }


def _training_field(name: str, annotations: dict[str, str]) -> dict[str, Any]:
    """The schema of one field. It has a type only if every stage that has the field allows scalars alone."""
    option = OPTIONS[name]
    if option.kind == "refused":
        return {"enum": [default_of(next(iter(annotations)), name)], "description": f"Only the default: {option.text}."}
    types = sorted({TYPES[scalar] for annotation in annotations.values() for scalar in allowed_scalars(annotation)})
    all_scalars = all(allowed_scalars(annotation) for annotation in annotations.values())
    written = "; ".join(f"{STAGES[stage].config}: {annotation}" for stage, annotation in annotations.items())
    effect = "No effect: " if option.kind == "no effect" else ""
    return ({"type": types} if all_scalars else {}) | {"description": f"{effect}{option.text} ({written})."}


def _nullable(field: dict[str, Any]) -> dict[str, Any]:
    texts: dict[str, Any] = {key: field[key] for key in ("description", "default", "title") if key in field}
    rest = {key: value for key, value in field.items() if key not in texts}
    kinds = [kind for kind in rest.get("anyOf", [rest]) if kind != {"type": "null"}]
    return {"anyOf": [*kinds, {"type": "null"}], **texts}


if __name__ == "__main__":
    print(json.dumps(json_schema(), indent=1))
