"""The section on what was asked of a run: its recipe, and what differs from the shipped one and from the defaults."""

from collections.abc import Sequence
from typing import Any

from olmoe_ft.recipe.yaml_file import dump_yaml
from olmoe_ft.report.files.recipe_origin import Origin, command_of, origin, overridden
from olmoe_ft.report.files.recipe_values import No, not_defaults, shown_value, values_of
from olmoe_ft.report.files.run_files import RunFiles
from olmoe_ft.report.page.blocks import Cell, Code, Column, Fold, Prose, Section, Table

# What the number of a key counts, by how the key ends; the first that fits. The names are the schema's and TRL's.
UNITS = {
    ("_batch_size",): "rows of a device",
    (".batch_size",): "questions at once",
    (".gradient_accumulation_steps",): "micro-batches",
    (".logging_steps", ".save_steps", ".eval_steps", ".warmup_steps", ".max_steps", ".every_steps"): "steps",
    (".max_length", ".max_prompt_length", ".max_new_tokens", ".max_completion_length"): "tokens",
    (".num_train_epochs",): "epochs",
    (".max_rows",): "rows",
    (".limit",): "questions",
    (".repeat",): "times an epoch",
    (".weight", ".max_dropped"): "of the rows",
    (".warmup_ratio",): "of the steps",
    (".ddp_timeout",): "seconds",
    (".save_total_limit",): "checkpoints",
    (".dataloader_num_workers", ".dataset_num_proc"): "processes",
}


def asked(run: RunFiles) -> Section | None:
    """The recipe of a run and its two tables; None where the recipe cannot be read."""
    if not run.recipe:
        return None
    found, marked = origin(run), overridden(run)
    blocks: list[Any] = []
    if found is not None:
        blocks.append(_from_shipped(found, marked))
    blocks.append(_from_defaults(run, marked))
    blocks.append(Fold("recipe.yaml, with every default filled in", [Code("recipe.yaml", dump_yaml(run.recipe))]))
    return Section("asked", "What was asked", blocks, _lead(run, found, marked))


def _lead(run: RunFiles, found: Origin | None, marked: Sequence[str]) -> str:
    parts = []
    if found is not None:
        which = "The command named the shipped recipe" if found.named else "The nearest shipped recipe is"
        parts.append(f"{which} {found.name}; {_count(len(found.differing))}.")
    if command_of(run):
        parts.append(f"Values that the command line set: {len(marked)}.")
    return " ".join(parts)


def _count(differing: int) -> str:
    return "nothing but the name differs" if not differing else f"values that differ: {differing}"


def _from_shipped(found: Origin, marked: Sequence[str]) -> Table | Prose:
    title = found.name if found.named else f"the nearest shipped recipe, {found.name}"
    if not found.differing:
        return Prose(f"Nothing but the name differs from {title}.")
    rows: list[list[Cell | str]] = [
        [key, _cell(key, mine, marked), _cell(key, theirs)] for key, mine, theirs in found.differing
    ]
    return Table(f"What differs from {title}", [Column("key"), Column("this run"), Column(found.name)], rows)


def _from_defaults(run: RunFiles, marked: Sequence[str]) -> Table:
    rows: list[list[Cell | str]] = [
        [key, _cell(key, one.value, marked), _cell(key, one.default)]
        for key, one in not_defaults(values_of(run.recipe))
    ]
    note = f'"{No.DEFAULT.value}": every recipe must choose. Defaults of training.* are TRL\'s.'
    return Table("What differs from the defaults", [Column("key"), Column("this run"), Column("default")], rows, note)


def _cell(key: str, value: Any, marked: Sequence[str] = ()) -> Cell:
    by_command = any(key == one or key.startswith(f"{one}.") for one in marked)
    return Cell(shown_value(value), "; ".join(filter(None, (unit(key, value), "command line" if by_command else ""))))


def unit(key: str, value: Any) -> str:
    """What a number counts; empty where it counts nothing."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return ""
    found = next((name for ends, name in UNITS.items() if f".{key}".endswith(ends)), "")
    return "of the steps" if found == "steps" and 0 < value < 1 else found
