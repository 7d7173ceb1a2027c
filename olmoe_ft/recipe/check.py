"""Check a document against schema and rules, and report every mistake in plain sentences."""

import re
from collections.abc import Iterable
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from olmoe_ft.recipe.document import Document
from olmoe_ft.recipe.errors import UserError
from olmoe_ft.recipe.options.hints import hint
from olmoe_ft.recipe.paths import with_found_paths
from olmoe_ft.recipe.rules import REFUSED_ADAPTERS, STAGE_SECTIONS, broken_rules
from olmoe_ft.recipe.schema import Lora, Recipe
from olmoe_ft.recipe.training_fields import training_fields
from olmoe_ft.recipe.training_rules import without_effect
from olmoe_ft.recipe.wording import Problem, nearest, shown
from olmoe_ft.stages import STAGES

# What a field allows, by pydantic's name of the error; braces are filled from the error's context.
NEEDED = {
    "int_type": "allowed: a whole number, without quotes",
    "float_type": "allowed: a number, without quotes",
    "finite_number": "allowed: a finite number",
    "bool_type": "allowed: true, false (without quotes)",
    "string_type": "allowed: a text; put it in quotes",
    "string_too_short": "allowed: a text that is not empty",
    "tuple_type": "allowed: a list (`- ...` on each line)",
    "model_type": "allowed: a section (`key: value` on each line)",
    "dict_type": "allowed: a section (`key: value` on each line)",
    "literal_error": "allowed: {expected}",
    "greater_than": "it must be greater than {gt:g}",
    "greater_than_equal": "it must be at least {ge:g}",
    "less_than": "it must be less than {lt:g}",
    "less_than_equal": "it must be at most {le:g}",
    "mapping_type": "allowed: a section (`key: value` on each line)",
}


def check(document: Document) -> Recipe:
    """The recipe that a document holds, with its paths looked up.

    Raises:
        UserError: with every mistake in it, in the order of the file.
    """
    values = with_found_paths(document)
    try:
        return Recipe.model_validate(values)
    except ValidationError as error:
        problems = [*broken_rules(values), *shape_problems(error)]
        raise UserError(located(document, problems)) from None


def located(document: Document, problems: Iterable[Problem]) -> list[str]:
    """Problems as messages `file:line: key: what is wrong`, in the order of the file, overrides first."""
    ordered = sorted(problems, key=lambda problem: document.place(problem[0]))
    return [f"{document.place(key)}: {key}: {text}" for key, text in ordered]


def notes(recipe: Recipe) -> list[str]:
    """What has no effect in a recipe, or in the stages of a pipeline."""
    return [
        f"{stage.name}: {key} has no effect: {reason}"
        for stage in recipe.runs
        if stage.stage != "pipeline"
        for key, reason in without_effect(stage.stage, stage.model_dump())
    ]


def shape_problems(error: ValidationError) -> Iterable[Problem]:
    """What pydantic found, in our words."""
    for found in error.errors(include_url=False):
        key = ".".join(str(part) for part in found["loc"] if part != "[key]")
        name = str(found["loc"][-1]) if found["loc"] else ""
        match found["type"]:
            case "rules":  # `check` names them one by one
                continue
            case "missing":
                yield key, f"is missing; {_meaning(found['loc'])}"
            case "extra_forbidden":
                section = model_at(found["loc"][:-1])
                if section is Lora and name in REFUSED_ADAPTERS:
                    yield key, f"found {shown(found['input'])}; {REFUSED_ADAPTERS[name]}"
                    continue
                known = [*section.model_fields, *(["extends"] if section is Recipe else [])]
                yield key, unknown_key(found["loc"], known)
            case "expected":
                yield key, f"found {shown(found['input'])}; allowed: {found['msg']}"
            case "less_than_equal" if name == "weight":
                yield key, f"found {shown(found['input'])}; it must be at most 1 (`repeat: 2` gives every row twice)"
            case kind if kind in NEEDED:
                context = found.get("ctx", {})
                if "expected" in context:  # pydantic quotes the names and joins them by commas and "or"
                    context["expected"] = ", ".join(re.findall(r"'(.*?)'", context["expected"]))
                needed = NEEDED[kind].format_map(context)
                yield key, f"found {shown(found['input'])}; {needed}"
            case _:
                yield key, f"found {shown(found['input'])}; {found['msg']}"


def unknown_key(location: tuple[int | str, ...], known: list[str]) -> str:
    """The message for an unknown key: our name for another tool's key, its right section, or the nearest name."""
    *section, name = (part for part in location if isinstance(part, str))
    if (lead := hint(".".join(section), name)) is not None:
        return f"there is no such key; {lead}"
    owners = [owner for owner in STAGE_SECTIONS if name in _keys(owner)] if section in ([], ["training"]) else []
    if len(owners) == 1:
        return f"belongs to the section `{owners[0]}`; write it as `{owners[0]}.{name}`"
    return f"unknown key{nearest(name, known)}; allowed: {', '.join(known)}"


def _keys(section: str) -> set[str]:
    if section == "training":
        return {name for stage in STAGES for name in training_fields(stage)}
    return set(model_at((section,)).model_fields)


def model_at(location: tuple[int | str, ...]) -> type[BaseModel]:
    """The section that a place in the recipe holds; a number in the location is an item of a list."""
    model: type[BaseModel] = Recipe
    for part in location:
        if isinstance(part, str):
            annotation = model.model_fields[part].annotation
            model = next(kind for kind in (annotation, *get_args(annotation)) if _is_section(kind))
    return model


def _is_section(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, BaseModel)


def _meaning(location: tuple[int | str, ...]) -> str:
    *section, name = location
    description = model_at(tuple(section)).model_fields[str(name)].description or ""
    return description[:1].lower() + description[1:].rstrip(".")
