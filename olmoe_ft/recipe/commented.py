"""Write a recipe of the package as one file, with a comment on every line that says what its key does."""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from textwrap import wrap
from typing import Any

from olmoe_ft.recipe.check import model_at
from olmoe_ft.recipe.load import load_recipe
from olmoe_ft.recipe.pipeline import stage_document
from olmoe_ft.recipe.rules import stage_of
from olmoe_ft.recipe.training_fields import help_of
from olmoe_ft.recipe.yaml_file import inline_yaml, read_document
from olmoe_ft.shipped import FILES

WIDTH = 120
Key = tuple[int | str, ...]


def commented(file: Path, title: str) -> str:
    """The text of a recipe, merged with what it extends, with a comment on each line.

    Args:
        file: the recipe.
        title: its name and description, for the first line.
    """
    head = (
        f"A copy of {title} A file that it names is looked for beside this file, then in the working folder, then "
        "among the files that come with olmoe_ft."
    )
    values = _whole(file)
    lines = [f"# yaml-language-server: $schema={FILES / 'recipes/schema.json'}"]
    lines += [f"# {part}" for part in wrap(head, WIDTH - 2)]
    return "\n".join([*lines, *_lines(values, (), stage_of(values))]) + "\n"


def _whole(file: Path) -> dict[str, Any]:
    """The values of a recipe with all that it extends, with its paths as they were written."""
    document = read_document(file)
    if document.values["stage"] != "pipeline":
        return document.values
    recipes, stages = load_recipe(file).stages, []
    for index, recipe in enumerate(recipes):
        values = {key: value for key, value in stage_document(document, index, None).values.items() if key != "name"}
        if index:  # it starts from the stage before, or from another run that the pipeline names
            start = {} if recipe.model.path == str(recipes[index - 1].run_dir) else {"path": recipe.model.path}
            rest = {key: value for key, value in values["model"].items() if key not in ("path", "config")}
            values["model"] = start | rest
        stages.append(values)
    return {"name": document.values["name"], "stage": "pipeline", "stages": stages}


def _lines(values: Mapping[str, Any], key: Key, stage: str | None, first: str = "") -> Iterator[str]:
    """The lines of a mapping, indented by its depth; `first` is written before its first key, "- " in a list."""
    for name, value in values.items():
        place = (*key, name)
        pad = " " * (2 * len(key) - len(first))
        start, first = f"{pad}{first}{name}:", ""
        is_section = isinstance(value, dict) and value
        is_list = isinstance(value, list) and value and all(isinstance(item, dict) for item in value)
        if not is_section and not is_list:
            start += f" {inline_yaml(value)}"
        yield from _with_comment(start, _meaning(place, stage), pad)
        if is_section:
            yield from _lines(value, place, stage)
        for index, item in enumerate(value if is_list else ()):
            yield from _lines(item, (*place, index), stage_of(item) if name == "stages" else stage, "- ")


def _with_comment(line: str, meaning: str, pad: str) -> Iterator[str]:
    """The comment at the end of the line if there is room, otherwise on lines before it."""
    if len(line) + len(meaning) + 4 <= WIDTH:
        yield f"{line}  # {meaning}"
    else:
        yield from (f"{pad}# {part}" for part in wrap(meaning, WIDTH - len(pad) - 2))
        yield line


def _meaning(key: Key, stage: str | None) -> str:
    """What a key does: the first sentence of the schema's description, or of the trainer's."""
    *section, name = key
    if section[-1:] == ["training"] and stage is not None:
        text = help_of(stage, str(name))
    else:
        text = model_at(tuple(section)).model_fields[str(name)].description or ""
    return re.split(r"(?<=[.?])\s+(?=[A-Z`])", " ".join(text.split()))[0].replace("%%", "%")
