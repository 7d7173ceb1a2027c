"""Convert a source of a recipe to a dataset on disk: every row is read and converted, or has its problem noted."""

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from datasets import Dataset, Features, List, Value
from tqdm.auto import tqdm

from olmoe_ft.data.cache import Cache, entry_rows, write_rows
from olmoe_ft.data.locations import content_hash, read_rows
from olmoe_ft.data.rows import Reading, RowError, key_name, says_nothing, shown_keys
from olmoe_ft.data.terminal import printable
from olmoe_ft.data.unread import LABELS, has_label, may_matter
from olmoe_ft.data.words import row_turns
from olmoe_ft.recipe import UserError
from olmoe_ft.recipe.data_section import Data, Source
from olmoe_ft.stages import Stage

MESSAGES = [{"role": Value("string"), "content": Value("string")}]
COMMON: dict[str, Any] = {  # columns that every row has
    "place": Value("string"),  # where the row is, after the source's path: ":12" in a file
    "problem": Value("string"),  # why it cannot be read; null if it can
    "form": Value("string"),  # the format it was read as
    "unread": List(Value("string")),  # its keys that were not read
    "doubtful": List(Value("string")),  # the unread keys that may matter
}


def load_source(source: Source, stage: Stage, data: Data) -> tuple[Dataset, str]:
    """One source in order, every row converted; a second reading comes from the cache.

    Args:
        stage: what learns from it, and so what a row becomes.
        data: the recipe's section, which says how rows are read and where they are kept. With `malformed: drop`, a row
            that cannot be read has the reason in `problem`, and everything else is null.
    Returns:
        the rows, and the name of their cache entry, a hash of everything they depend on.
    Raises:
        UserError: the source is missing, unreadable or empty, or a row is malformed.
    """
    place = (source.path, source.split, source.config, source.revision)
    settings = {
        "source": source.model_dump(mode="json", exclude={"path", "weight", "repeat"}),
        "stage": stage.name,
        "malformed": data.malformed,
        "learn": data.learn,
        "turn_marks": data.turn_marks,
    }

    def make(folder: Path) -> None:
        rows = tqdm(_converted(source, stage, data), desc=printable(f"Reading {source.path}"), unit=" rows", delay=1)
        write_rows(folder / "rows.arrow", rows, _features(stage))

    entry = Cache(data.cache).entry("rows", [settings, content_hash(*place)], make)
    return entry_rows(entry, "rows"), entry.name


def _features(stage: Stage) -> Features:
    return Features({**stage.features(), **COMMON})


def _converted(source: Source, stage: Stage, data: Data) -> Iterator[dict[str, Any]]:
    reading = Reading(data.learn, data.turn_marks == "obey", frozenset(source.ignore), source.labels)
    empty = dict.fromkeys(_features(stage))
    starts = _starts(source.path)
    unseen, keys, is_labelled = {*source.columns}, None, False
    for where, row in islice(read_rows(source.path, source.split, source.config, source.revision), source.max_rows):
        keys = list(row) if isinstance(row, dict) else []
        unseen -= set(keys)
        renamed = _renamed(row, source.columns)
        is_labelled = is_labelled or (bool(source.labels) and has_label(renamed, reading.ignore))
        try:
            for example in stage.convert(renamed, source.format, reading):
                _note_displaced(example, row, source.columns)
                yield empty | example | {"place": _behind(starts, where)}
        except (RowError, RecursionError) as error:
            message = str(error) if isinstance(error, RowError) else "nested too deeply"
            problem = message.encode(errors="backslashreplace").decode()  # it may quote half a character
            if data.malformed == "stop":
                has_remedy = "data.malformed" in problem or "columns:" in problem
                remedy = "" if has_remedy else "; correct the row, or set data.malformed to drop"
                raise UserError(f"{where}: {problem}{remedy}") from None
            yield empty | {"place": _behind(starts, where), "problem": problem}
    if keys is None:
        raise UserError(f"{source.path}: the dataset is empty; give one with at least one row")
    if unseen:
        absent, known = shown_keys(sorted(unseen)), shown_keys(keys)
        raise UserError(
            f"{source.path}: no row has {absent}, which `columns` renames; allowed: {known}, the keys of the last row"
        )
    if source.labels and not is_labelled:
        raise UserError(
            f"{source.path}: no row has a {' or '.join(LABELS)}, whose values `labels` names; remove `labels`, or "
            f"rename the key that has them with `columns`; found {shown_keys(keys)} in the last row"
        )


def _starts(path: str) -> list[str]:
    """The texts that the place of a row in a source may start with."""
    return [str(Path(path)), str(Path(path).absolute()), str(Path(path).resolve())]


def _behind(starts: list[str], where: str) -> str:
    """A place without the path of its source, because the source may be moved."""
    for start in starts:
        if where.startswith(start):
            return where.removeprefix(start)
    return f" ({where})"  # a file outside the folder, which the folder's card names


def _renamed(row: Any, names: Any) -> Any:
    """The row with its keys renamed; a key that already has such a name is replaced."""
    if not isinstance(row, dict):
        return row
    others = {key: value for key, value in row.items() if key not in names}
    return others | {names[key]: value for key, value in row.items() if key in names}


def _note_displaced(example: dict[str, Any], row: dict[str, Any], names: Any) -> None:
    """Note the keys that a renamed key has replaced as not read."""
    taken = {new for old, new in names.items() if old in row}
    if not taken:
        return
    texts = {text.strip() for _, text in row_turns(example)}
    for key, value in row.items():
        if key in taken and key not in names and not says_nothing(value):
            example["unread"].append(key_name(key))
            if may_matter(key, value, texts):
                example["doubtful"].append(key_name(key))
