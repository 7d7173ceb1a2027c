"""What can be wrong in the rows of a task: each is put through what the task makes of it, before a weight is loaded."""

from ast import literal_eval
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from jinja2 import TemplateError

from olmoe_ft.data.rows import shown, shown_keys
from olmoe_ft.evaluation.task_keys import SPLITS, Problem, are_choices, not_found
from olmoe_ft.evaluation.task_rows import Rows, as_dataset, dataset, split_rows, splits
from olmoe_ft.reasons import one_line
from olmoe_ft.recipe import UserError
from olmoe_ft.recipe.wording import nearest

LOCAL = ("json", "csv", "parquet")
"""The `dataset_path` of files. Their rows are read by `task_rows.dataset`."""
FILES = "dataset_kwargs.data_files"
SHOWN = 5  # malformed rows; the others are counted
OWN_SCORERS = "olmoe_ft.evaluation.scorers."

Read = Callable[[int], Any]
"""From the number of a row to what a key of the task makes of it."""


def has_own_rows(values: Mapping[str, Any]) -> bool:
    """Whether a task's rows are in files that are read here, rather than on the Hub or by the user's own code."""
    options = values.get("dataset_kwargs") or {}
    if not isinstance(options, dict):
        return False  # reported with the keys
    if (reader := values.get("custom_dataset")) is not None:
        return reader is dataset
    local = values.get("dataset_path") in LOCAL and set(options) <= {"data_files"}
    return local and "://" not in str(options.get("data_files"))


def data_problems(values: Mapping[str, Any]) -> Iterator[Problem]:
    """All that is wrong with the files and rows of a task that has its own; of others, with options for local files."""
    if not has_own_rows(values):
        yield from _option_problems(values)
        return
    data_files = (values.get("dataset_kwargs") or {}).get("data_files")
    if not data_files:
        yield FILES, f"the task has no file of rows; name one: `{values.get('task')}=FILE`"
        return
    try:
        files = splits(data_files)
    except UserError as error:
        yield FILES, str(error)
        return
    shots = values.get("fewshot_config")
    named = {key: values.get(key) for key in SPLITS}
    named["fewshot_config.split"] = shots.get("split") if isinstance(shots, dict) else None
    for key, split in named.items():
        if isinstance(split, str) and split not in files:
            allowed = (
                f"allowed: {', '.join(files)}, or a task file that includes this one and has a file for each split"
            )
            yield key, f"found `{split}`, of which there is no file; {allowed}"
    asked = named["test_split"] or named["validation_split"]
    for split, names in files.items():
        try:
            rows = split_rows(names)
            if split == asked:
                yield from _row_problems(values, rows)
        except UserError as error:
            yield FILES, str(error)


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


def _row_problems(values: Mapping[str, Any], rows: Rows) -> Iterator[Problem]:
    """What the task cannot make of its rows. Templates see them as they are written, so that a missing key is found."""
    filled = as_dataset(rows)
    written: Sequence[Mapping[str, Any]] = [row for _, row in rows]
    places = [where for where, _ in rows]
    if (change := values.get("process_docs")) is not None:
        if change is not_found:
            return
        try:
            filled = change(filled)
            written = list(filled)
            columns = list(filled.features)
        except Exception as error:  # the user's own function
            yield "process_docs", f"fails on the rows ({one_line(error)}); correct it"
            return
        places = [f"row {number} of process_docs" for number in range(1, len(written) + 1)]
    else:
        columns = list(filled.features)
    for key in ("doc_to_text", "doc_to_target", "doc_to_choice", "process_results"):
        value = values.get(key)
        if isinstance(value, str) and (wrong := _constant(key, value, columns)):
            yield key, wrong
        elif (read := _reader(key, value, columns, written, filled)) is not None:
            yield from ((key, problem) for problem in _each(read, places))


def _constant(key: str, text: str, columns: list[str]) -> str:
    """A message if a text is neither a key of the rows nor a template: lm-eval would put the same text for each row."""
    if not text.strip() or text in columns or "{{" in text or "{%" in text:
        return ""
    near = nearest(text, columns)
    if key != "doc_to_text" and not near:
        return ""  # an answer that is the same for all rows
    return f"found {shown(text)}, which is no key of the rows{near}, and no template; allowed: {shown_keys(columns)}"


def _reader(key: str, value: Any, columns: list[str], written: Sequence[Mapping[str, Any]], filled: Any) -> Read | None:
    """How to compute what a key of the task is for a row; None where nothing can be checked."""
    from lm_eval.utils import env

    if isinstance(value, str) and value in columns:
        if key == "doc_to_choice":
            return lambda number: _offered(_present(written[number], value))
        return lambda number: _present(written[number], value)
    if isinstance(value, str):
        try:
            template = env.overlay(finalize=_not_null).from_string(value)
        except TemplateError:
            return None  # reported with the keys
        if key == "doc_to_choice":
            return lambda number: _offered(literal_eval(template.render(**written[number])))
        return lambda number: template.render(**written[number])
    if not callable(value) or value is not_found:
        return None
    if key == "process_results":  # the user's own may need more than an empty output
        own = getattr(value, "__module__", "").startswith(OWN_SCORERS)
        return (lambda number: value(filled[number], [""])) if own else None
    if key == "doc_to_choice":
        return lambda number: _offered(value(filled[number]))
    return lambda number: value(filled[number])


def _each(read: Read, places: list[str]) -> Iterator[str]:
    """A message for each of the first rows that cannot be read."""
    wrong = 0
    for number, place in enumerate(places):
        try:
            read(number)
        except UserError as error:
            reason = str(error)
        except Exception as error:  # of a template, or of the user's own function
            reason = f"{one_line(error)}; correct the row, or what the task does with it"
        else:
            continue
        wrong += 1
        if wrong <= SHOWN:
            yield f"{place}: {reason}"
    if wrong > SHOWN:
        yield f"and {wrong - SHOWN} more rows like these"


def _present(row: Mapping[str, Any], key: str) -> Any:
    if row.get(key) is None:
        raise UserError(f"has no `{key}`; found {shown_keys(row)}; add it, or take out the row")
    return row[key]


def _offered(choices: Any) -> None:
    if not are_choices(choices):
        raise UserError(f"found the choices {shown(choices)}; allowed: a list of texts, none of them empty")


def _not_null(value: Any) -> Any:
    """Refuses what a template would write as the word `None`."""
    if value is None:
        raise ValueError("a value that the template writes is null")
    return value
