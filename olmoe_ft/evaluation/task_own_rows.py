"""A task whose rows are in files: which one is, where the files are, and a file in the place of a task's own rows."""

import os
from collections.abc import Collection, Iterator, Mapping
from glob import escape, glob
from pathlib import Path
from typing import Any

from olmoe_ft.data.files import kind_of
from olmoe_ft.evaluation.task_rows import dataset
from olmoe_ft.evaluation.task_yaml import Problem

LOCAL = ("json", "csv", "parquet")
"""The `dataset_path` of files. Their rows are read by `task_rows.dataset`."""
SPLITS = ("training_split", "validation_split", "test_split", "fewshot_split")


def has_own_rows(values: Mapping[str, Any]) -> bool:
    """Whether a task's rows are in files that are read here, rather than on the Hub or by the user's own code."""
    options = values.get("dataset_kwargs") or {}
    if not isinstance(options, dict):
        return False  # reported with the keys
    if (reader := values.get("custom_dataset")) is not None:
        return reader is dataset
    local = values.get("dataset_path") in LOCAL and set(options) <= {"data_files"}
    return local and "://" not in str(options.get("data_files"))


def with_rows(values: dict[str, Any], file: str) -> dict[str, Any]:
    """A task with the rows of a file in the place of its questions; its other splits are gone."""
    asked = "validation_split" if values.get("test_split") is None and values.get("validation_split") else "test_split"
    split = values.get(asked) or "test"
    gone = {"dataset_name", "training_split", "validation_split", "test_split"}
    if not values.get("num_fewshot"):
        gone.add("fewshot_split")
    kind = kind_of(file)
    return {
        **{key: value for key, value in values.items() if key not in gone},
        "dataset_path": "json" if kind == "jsonl" else kind,
        "dataset_kwargs": {"data_files": {split: file}},
        "custom_dataset": dataset,
        asked: split,
    }


def with_reader(values: dict[str, Any], folder: Path) -> dict[str, Any]:
    """A task that has its own rows with their reader, and the paths of its files.

    Args:
        folder: of the task file, where a file of rows may be that is not in the working folder.
    """

    def placed(files: Any) -> Any:
        if isinstance(files, dict):
            return {split: placed(names) for split, names in files.items()}
        if isinstance(files, list):
            return [placed(name) for name in files]
        name, pattern = str(files), os.path.join(escape(str(folder)), str(files))
        if os.path.exists(name) or glob(name):
            return files
        beside = os.path.join(folder, name)
        return beside if os.path.isfile(beside) else pattern if glob(pattern) else files

    options = values.get("dataset_kwargs") or {}
    options = {**options, **({"data_files": placed(options["data_files"])} if "data_files" in options else {})}
    return {**values, "dataset_kwargs": options, "custom_dataset": dataset}


def split_problems(values: Mapping[str, Any], files: Collection[str]) -> Iterator[Problem]:
    """Splits of which there is no file."""
    shots = values.get("fewshot_config")
    named = {key: values.get(key) for key in SPLITS}
    named["fewshot_config.split"] = shots.get("split") if isinstance(shots, dict) else None
    allowed = f"allowed: {', '.join(files)}, or a task file that includes this one and has a file for each split"
    for key, split in named.items():
        if isinstance(split, str) and split not in files:
            yield key, f"found `{split}`, of which there is no file; {allowed}"
