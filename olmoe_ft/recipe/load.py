"""Load a recipe from a file and overrides."""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from olmoe_ft.recipe.check import check, unknown_key
from olmoe_ft.recipe.document import OVERRIDE, Document, assign
from olmoe_ft.recipe.errors import UserError, gathered
from olmoe_ft.recipe.paths import MISSED
from olmoe_ft.recipe.pipeline import check_pipeline
from olmoe_ft.recipe.schema import Recipe
from olmoe_ft.recipe.wording import nearest
from olmoe_ft.recipe.yaml_file import parse_value, read_document
from olmoe_ft.shipped import recipe_names, shipped_recipe


class Override(NamedTuple):
    """A value from the command line and the dotted key it replaces."""

    key: str
    value: Any


def load_recipe(path: str | os.PathLike[str], overrides: Iterable[str] = ()) -> Recipe:
    """Read a recipe, merge it with what it extends, apply overrides, resolve a pipeline, check everything.

    Args:
        path: the YAML file, or the name of a recipe that comes with the package (`tiny/sft`).
        overrides: `section.key=value` each, the value as YAML; `data.train.0.weight=0.5` reaches into a list. In a
            pipeline `training.max_steps=2` reaches every stage and `stages.0.training.max_steps=2` only the first.
    Raises:
        UserError: the file cannot be read, or the recipe or the overrides are wrong; it has every mistake.
    """
    document = read_document(recipe_file(path))
    MISSED.clear()
    messages: list[str] = []
    assignments: list[Override] = []
    for text in overrides:
        with gathered(messages):
            assignments.append(parse_override(text))
    with gathered(messages):
        recipe = _recipe(document, assignments)
    if messages:
        raise UserError(
            list(dict.fromkeys(messages))
        )  # stages of a pipeline share sections, so the same mistake comes up more than once
    return recipe


def recipe_file(name: str | os.PathLike[str]) -> Path:
    """The file of a recipe: the file at this path, otherwise the recipe of this name in the package.

    Raises:
        UserError: there is neither.
    """
    if os.path.exists(name):
        return Path(name)
    if (file := shipped_recipe(os.fspath(name))) is not None:
        return file
    raise UserError(
        f"{name}: there is no such file in {Path.cwd()}, and olmoe_ft has no recipe of this name"
        f"{nearest(os.fspath(name), recipe_names())}; `olmoe-ft recipes` lists them"
    )


def parse_override(text: str) -> Override:
    """Split `section.key=value`.

    Raises:
        UserError: there is no `=`, no such section, or the value is not YAML.
    """
    key, equals, value = text.partition("=")
    if not equals or not all(key.split(".")):
        raise UserError(f'{OVERRIDE}: found "{text}"; write section.key=value, such as training.learning_rate=1e-5')
    section = key.partition(".")[0]
    known = list(Recipe.model_fields)
    if section not in known:
        message = unknown_key((section,), known).replace("unknown key", "unknown section")
        raise UserError(f"{OVERRIDE}: {key}: {message}")
    try:
        return Override(key, parse_value(value))
    except ValueError as error:
        raise UserError(
            f'{OVERRIDE}: {key}: found "{value}", which is not valid YAML ({error}); put a text in quotes'
        ) from None


def _recipe(document: Document, assignments: list[Override]) -> Recipe:
    if document.values.get("stage") == "pipeline":
        return check_pipeline(document, assignments)
    messages: list[str] = []
    for key, value in assignments:
        with gathered(messages):
            document = assign(document, key, value)
    with gathered(messages):
        recipe = check(document)
    if messages:
        raise UserError(messages)
    return recipe
