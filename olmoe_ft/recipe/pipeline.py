"""A pipeline: stages that each start from the one before, each resolved to a complete recipe.

A stage is merged from these layers, lowest first: the file that its item extends; the pipeline's own sections; for all
but the first, the run of the stage before as `model.path`; the item's own keys; the command line.
"""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from olmoe_ft.recipe.check import check, located
from olmoe_ft.recipe.document import OVERRIDE, Document, assign, merge
from olmoe_ft.recipe.errors import UserError, gathered
from olmoe_ft.recipe.rules import STAGE_SECTIONS, is_run_name, stage_of
from olmoe_ft.recipe.schema import Recipe
from olmoe_ft.recipe.wording import shown
from olmoe_ft.recipe.yaml_file import read_parent
from olmoe_ft.stages import STAGES

Assignment = tuple[str, Any]  # dotted key and value, from the command line


def check_pipeline(document: Document, assignments: Sequence[Assignment]) -> Recipe:
    """The recipe of a pipeline, with its stages resolved.

    Args:
        document: the pipeline's file.
        assignments: to the pipeline (`name`), to every stage (`training.max_steps`) or to one
            (`stages.0.training.max_steps`).
    Raises:
        UserError: with every mistake in the pipeline and all its stages.
    """
    messages: list[str] = []
    for key, value in assignments:
        if key.partition(".")[0] not in STAGE_SECTIONS and not re.match(r"stages\.\d+\.", key):
            with gathered(messages):
                document = assign(document, key, value)
    items = document.values.get("stages")
    if not isinstance(items, list) or not items or not all(isinstance(item, dict) for item in items):
        needed = "allowed: a list of stages, such as `- extends: sft.yaml`"
        raise UserError([*messages, *located(document, [("stages", f"found {shown(items)}; {needed}")])])
    messages += [
        f"{OVERRIDE}: {key}: there is no such stage; allowed: 0 to {len(items) - 1}"
        for key, _ in assignments
        if (number := re.match(r"stages\.(\d+)\.", key)) and int(number[1]) >= len(items)
    ]
    stages = list(_checked_stages(document, assignments, len(items), messages))
    head = document.only(document.values.keys() - {*STAGE_SECTIONS, "stages"})
    with gathered(messages):
        recipe = check(Document(head.values | {"stages": stages}, head.places))
    if messages:
        raise UserError(messages)
    return recipe


def _checked_stages(
    document: Document, assignments: Sequence[Assignment], count: int, messages: list[str]
) -> Iterator[Recipe]:
    """Every valid stage; the mistakes of the others are added to the messages."""
    given = document.values.get("name")
    pipeline = given if is_run_name(given) else "pipeline"  # a wrong name is reported once, for the pipeline
    kinds: Counter[str] = Counter()
    previous = f"{pipeline}/{next(iter(STAGES))}"
    for index in range(count):
        with gathered(messages):
            stage = stage_document(document, index, Path("runs") / previous if index else None)
            for key, value in _assignments_of(index, assignments):
                stage = assign(stage, key, value)
            kind = stage_of(stage.values)
            if kind is None:
                found = shown(stage.values.get("stage"))
                allowed = ", ".join(STAGES)
                raise UserError(located(stage, [("stage", f"found {found}; allowed in a pipeline: {allowed}")]))
            kinds[kind] += 1
            previous = f"{pipeline}/{kind}" + (f"-{kinds[kind]}" if kinds[kind] > 1 else "")
            yield check(merge(stage, Document({"name": previous}, {})))


def stage_document(document: Document, index: int, start: Path | None) -> Document:
    """One stage, merged from its layers; `start` is the run directory it starts from."""
    item = document.at(f"stages.{index}")
    own = item.only(item.values.keys() - {"extends"})
    layers = [document.only(set(STAGE_SECTIONS)), own]
    if start is not None:
        model = {"path": str(start), "config": None}
        layers.insert(1, Document({"model": model}, {f"model.{key}": item.place() for key in model}))
    if (parent := item.values.get("extends")) is not None:
        place = item.place("extends")
        layers.insert(0, read_parent(parent, place, Path(place.file), (Path(place.file),)))
    return merge(*layers)


def _assignments_of(index: int, assignments: Sequence[Assignment]) -> Iterator[Assignment]:
    """The overrides for one stage. `model.path` and `model.config` without a stage number are for the first only."""
    for key, value in assignments:
        section = key.partition(".")[0]
        if key.startswith(f"stages.{index}."):
            yield key.removeprefix(f"stages.{index}."), value
        elif key == "model" and index and isinstance(value, dict):
            yield from ((f"model.{name}", value[name]) for name in value.keys() - {"path", "config"})
        elif section in STAGE_SECTIONS and not (index and key in ("model.path", "model.config")):
            yield key, value
