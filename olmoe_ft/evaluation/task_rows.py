"""What the shipped task files name: how their rows are read, and the prompt in each.

lm-eval would read a file with `datasets`, which makes a date of "2024-01-01" and can make the number 1 of "1". Rows are
read here as those of training data are, and their texts stay as they are.
"""

from collections.abc import Mapping
from functools import cache
from glob import glob
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow
import yaml

from olmoe_ft.data.files import file_rows
from olmoe_ft.data.formats import conversation_prompt
from olmoe_ft.data.rows import Reading, RowError, Unreadable, key_name, shown
from olmoe_ft.data.unread import JUDGEMENTS
from olmoe_ft.reasons import one_line
from olmoe_ft.recipe import UserError
from olmoe_ft.recipe.paths import sought
from olmoe_ft.shipped import found

if TYPE_CHECKING:
    from datasets import Dataset

Rows = list[tuple[str, dict[str, Any]]]
"""Each row with its place."""
READ = Reading(ignore=frozenset(JUDGEMENTS))


def dataset(data_files: Any = None, **others: Any) -> "dict[str, Dataset]":
    """The splits of a task, as lm-eval's `custom_dataset` gives them.

    Args:
        data_files: a file, a list of files, or for each split one of these; a shipped one is found from any folder.
        others: the task's `metadata`, which lm-eval gives too.
    Raises:
        UserError: a file is missing, empty or malformed.
    """
    return {split: as_dataset(split_rows(files)) for split, files in splits(data_files).items()}


def splits(data_files: Any) -> dict[str, list[str]]:
    """The files of each split; those without one are of "train", as `datasets` has it.

    Raises:
        UserError: there are none, or they are no paths.
    """
    if not data_files:
        raise UserError("data_files: found no file of rows; name one for each split: `data_files: {test: FILE}`")
    by_split = data_files if isinstance(data_files, dict) else {"train": data_files}
    listed = {split: [files] if isinstance(files, str) else files for split, files in by_split.items()}
    for files in listed.values():
        if not (isinstance(files, list) and files and all(isinstance(name, str) for name in files)):
            raise UserError(f"found {shown(files)}; allowed: the path of a file, or a list of paths")
    return listed


def split_rows(files: list[str]) -> Rows:
    """The rows of a split.

    Raises:
        UserError: all that is wrong with its files, up to their first malformed rows.
    """
    rows: Rows = []
    for name in files:
        own = [(where, _row(where, row)) for file in _existing(name) for where, row in file_rows(file)]
        if not own:
            raise UserError(f"{name}: the file has no rows; give at least one")
        rows += own
    return rows


def _existing(name: str) -> list[Path]:
    """The files that a name or pattern in `data_files` is of."""
    files = [Path(file) for file in sorted(glob(name)) or [found(name)]]
    if missing := next((file for file in files if not file.is_file()), None):
        raise UserError(f"{missing}: there is no such file; check the path ({sought(name)})")
    return files


def as_dataset(rows: Rows) -> "Dataset":
    """A dataset in which a row has null for the keys that only other rows have.

    Raises:
        UserError: a key has values of different kinds.
    """
    from datasets import Dataset

    keys = dict.fromkeys(key for _, row in rows for key in row)
    columns = {key: [row.get(key) for _, row in rows] for key in keys}
    for key, values in columns.items():
        try:
            pyarrow.array(values)
        except (pyarrow.ArrowException, OverflowError) as error:
            raise UserError(
                f"{rows[0][0]} and below: `{key_name(key)}` has values of different kinds ({one_line(error)}); give it "
                "one kind in all rows"
            ) from None
    return Dataset.from_dict(columns)


def _row(where: str, row: Any) -> dict[str, Any]:
    if isinstance(row, Unreadable):
        raise UserError(f"{where}: {row.reason}; correct the line")
    if not isinstance(row, dict):
        raise UserError(f"{where}: found {shown(row)}; allowed: an object with named fields")
    return row


def question(doc: Mapping[str, Any]) -> str:
    """What the user says in a row of `messages` or `prompt`, in any format of a recipe's `data.answers`.

    Raises:
        UserError: the prompt is missing, or has more than one turn: lm-eval puts a single text to a model.
    """
    try:
        turns = conversation_prompt(doc, READ)
    except RowError as error:
        raise UserError(str(error)) from None
    if len(turns) != 1:
        roles = ", ".join(turn["role"] for turn in turns)
        raise UserError(f"the prompt has {len(turns)} turns ({roles}); allowed: one turn of the user")
    return turns[0]["content"]


def expected(doc: Mapping[str, Any]) -> str:
    """A row's `answer` as text; empty where it has none."""
    return "" if doc.get("answer") is None else str(doc["answer"])


@cache
def worked_examples() -> tuple[dict[str, str], ...]:
    """The eight worked examples for GSM8K of Wei et al. 2022 (arXiv:2201.11903), from lm-eval's `gsm8k_cot`."""
    text = (resources.files("lm_eval") / "tasks/gsm8k/gsm8k-cot.yaml").read_text(encoding="utf-8")
    return tuple(yaml.safe_load(text)["fewshot_config"]["samples"])
