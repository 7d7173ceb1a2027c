"""What can be wrong in the rows of a task: each is put through what the task makes of it, before a weight is loaded."""

from collections.abc import Iterator, Mapping
from typing import Any

from olmoe_ft.evaluation.task_own_rows import LOCAL, has_own_rows, split_problems
from olmoe_ft.evaluation.task_rows import Rows, as_dataset, split_rows, splits
from olmoe_ft.evaluation.task_shots import example_problems
from olmoe_ft.evaluation.task_templates import PROMPT, answer_problems, docs_of, template_problems
from olmoe_ft.evaluation.task_yaml import Problem, not_found
from olmoe_ft.reasons import one_line
from olmoe_ft.recipe import UserError

FILES = "dataset_kwargs.data_files"


def data_problems(values: Mapping[str, Any], typed: str) -> Iterator[Problem]:
    """All that is wrong with the files and rows of a task that has its own; of others, with options for local files.

    Args:
        typed: the name with which the user asked for the task.
    """
    if not has_own_rows(values):
        yield from _option_problems(values)
        return
    data_files = (values.get("dataset_kwargs") or {}).get("data_files")
    if not data_files:
        yield FILES, f"needs your file: --tasks {typed}=FILE"
        return
    try:
        files = splits(data_files)
    except UserError as error:
        yield FILES, str(error)
        return
    yield from split_problems(values, files)
    read: dict[str, Rows] = {}
    for split, names in files.items():
        try:
            read[split] = split_rows(names)
        except UserError as error:
            yield FILES, str(error)
    asked = values.get("test_split") or values.get("validation_split")
    if isinstance(asked, str) and asked in read:
        yield from _row_problems(values, asked, read)


def _option_problems(values: Mapping[str, Any]) -> Iterator[Problem]:
    """Options with which `datasets` would not read local files, which is then left to it."""
    options = values.get("dataset_kwargs")
    local = values.get("dataset_path") in LOCAL and values.get("custom_dataset") is None
    if local and isinstance(options, dict) and "://" not in str(options):
        from datasets import load_dataset_builder

        try:
            load_dataset_builder(values["dataset_path"], values.get("dataset_name"), **options)
        except Exception as error:  # unknown options, missing files
            yield "dataset_kwargs", f"`datasets` refuses them ({one_line(error)}); correct them"


def _row_problems(values: Mapping[str, Any], asked: str, read: Mapping[str, Rows]) -> Iterator[Problem]:
    """What the task cannot make of its questions, and of its worked examples."""
    change = values.get("process_docs")
    if change is not_found:
        return
    try:
        filled = as_dataset(read[asked])
    except UserError as error:
        yield FILES, str(error)
        return
    try:
        docs = docs_of(read[asked], filled, change)
    except UserError as error:
        yield "process_docs", str(error)
        return
    yield from template_problems(values, docs, (*PROMPT, "process_results"))
    yield from answer_problems(values, docs)
    yield from example_problems(values, docs, read)
