"""Run directories of a few small files, for tests of what is read from them."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from olmoe_ft.evaluation.files import add
from olmoe_ft.evaluation.score import Evaluation
from olmoe_ft.recipe import load_recipe
from olmoe_ft.report.files.run_files import RunFiles, read_run
from olmoe_ft.report.page.blocks import Block, Cell, Fold, Section, Table
from olmoe_ft.training.files import to_json


def recipe_of(name: str = "tiny/sft", *overrides: str) -> dict[str, Any]:
    """A resolved recipe, as a run directory has it."""
    return yaml.safe_load(load_recipe(name, overrides).to_yaml())


def make_run(
    folder: Path,
    recipe: Mapping[str, Any] | None = None,
    records: Sequence[Mapping[str, Any]] = (),
    evaluations: Sequence[Evaluation] = (),
    **objects: Any,
) -> RunFiles:
    """A run directory with these files.

    Args:
        recipe: by default that of tiny/sft.
        objects: what is in JSON files, by their names; `launches` are those of `run.json`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "recipe.yaml").write_text(yaml.safe_dump(dict(recipe or recipe_of()), sort_keys=False))
    if records:
        (folder / "metrics.jsonl").write_text("".join(to_json(record) + "\n" for record in records))
    for one in evaluations:
        add(folder, one)
    if (launches := objects.pop("launches", None)) is not None:
        objects["run"] = {"launches": launches}
    for name, content in objects.items():
        (folder / f"{name}.json").write_text(json.dumps(content))
    return read_run(folder)


def blocks_of(section: Section | None) -> list[Block]:
    """All blocks of a section, those in folds too."""
    assert section is not None
    found: list[Block] = []
    waiting = list(section.blocks)
    while waiting:
        block = waiting.pop(0)
        found.append(block)
        waiting = [*block.blocks, *waiting] if isinstance(block, Fold) else waiting
    return found


def table_of(section: Section | None, title: str) -> list[list[str]]:
    """The rows of a table as texts: `text (note)` of a cell that has a note."""
    (table,) = (block for block in blocks_of(section) if isinstance(block, Table) and block.title == title)
    return [[_text(cell) for cell in row] for row in table.rows]


def titles_of(section: Section | None) -> list[str]:
    return [block.title for block in blocks_of(section) if isinstance(block, Table)]


def _text(cell: Cell | str) -> str:
    if isinstance(cell, str):
        return cell
    return f"{cell.text} ({cell.note})" if cell.note else cell.text
