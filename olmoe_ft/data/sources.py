"""A source of a recipe as a data set on disk: every row read, recognised and converted, or said to be wrong and how."""

import hashlib
import os
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from datasets import Dataset, Features, Value
from datasets.exceptions import DatasetGenerationError

from olmoe_ft.data import files, formats, turns
from olmoe_ft.data.turns import RowError
from olmoe_ft.recipe import RecipeError
from olmoe_ft.recipe.schema import Source

MESSAGES = [{"role": Value("string"), "content": Value("string")}]
# where a row stands ("file.jsonl:12"), and why it cannot be read, null for one that can
COMMON = {"place": Value("string"), "problem": Value("string")}
FEATURES = {
    "sft": Features({"messages": MESSAGES, "text": Value("string"), **COMMON}),
    "dpo": Features({"prompt": MESSAGES, "chosen": MESSAGES, "rejected": MESSAGES, **COMMON}),
}


def version_of(*modules: Any) -> str:
    """A hash of modules' code: what they did before a change must not be answered from a cache after it."""
    return hashlib.sha256(b"".join(Path(module.__file__).read_bytes() for module in modules)).hexdigest()[:16]


def load_source(source: Source, stage: str, malformed: str = "stop") -> Dataset:
    """One source in its order, every row converted; reading it again is answered from a cache.

    Args:
        stage: "sft" for `messages` or `text`, "dpo" for `prompt`, `chosen` and `rejected` (lists of messages).
        malformed: "stop" at the first row that cannot be read, or "drop": its `problem` says why, the rest is null.
    Raises:
        RecipeError: the source is missing, unreadable or empty, or a row is malformed.
    """
    arguments: dict[str, Any] = {
        "source": source.model_dump(),
        "stage": stage,
        "malformed": malformed,
        "version": version_of(files, formats, turns),  # with the file's size and time, the key of the cache
    }
    if os.path.exists(source.path):
        path = Path(source.path)
        members = sorted(member for member in path.rglob("*") if member.exists()) if path.is_dir() else [path]
        # a tuple: lists are taken for shards, and the generator run once for each item
        arguments["files"] = tuple((str(m.resolve()), m.stat().st_size, m.stat().st_mtime_ns) for m in members)
    try:
        return Dataset.from_generator(_converted, features=FEATURES[stage], gen_kwargs=arguments)
    except DatasetGenerationError as error:
        if isinstance(error.__cause__, RecipeError):
            raise error.__cause__ from None
        raise


def _converted(source: dict[str, Any], stage: str, malformed: str, **_: Any) -> Iterator[dict[str, Any]]:
    convert = formats.preference_pair if stage == "dpo" else formats.training_example
    empty = dict.fromkeys(FEATURES[stage])
    rows = files.read_rows(source["path"], source["split"], source["config"], source["revision"])
    unseen, keys = set(source["columns"]), None
    for where, row in islice(rows, source["max_rows"]):
        keys = list(row) if isinstance(row, dict) else []
        unseen -= set(keys)
        try:
            yield empty | convert(_renamed(row, source["columns"]), source["format"]) | {"place": where}
        except RowError as error:
            problem = str(error).encode(errors="backslashreplace").decode()  # it may quote half a character
            if malformed == "stop":
                raise RecipeError(f"{where}: {problem}") from None
            yield empty | {"place": where, "problem": problem}
    if keys is None:
        raise RecipeError(f"{source['path']}: the data set is empty; give one with at least one row")
    if unseen:
        absent, known = ", ".join(sorted(unseen)), ", ".join(keys)
        raise RecipeError(f"{source['path']}: no row has {absent}, which `columns` renames; the last has {known}")


def _renamed(row: Any, names: dict[str, str]) -> Any:
    """The row under the format's names; what already stands under such a name gives way."""
    if not isinstance(row, dict):
        return row
    others = {key: value for key, value in row.items() if key not in names}
    return others | {names[key]: value for key, value in row.items() if key in names}
