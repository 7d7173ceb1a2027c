"""Read the sources of a recipe: files or Hub data sets, row by row, converted and mixed."""

import gzip
import hashlib
import json
import random
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow.compute as compute
from datasets import Dataset, Features, Value, concatenate_datasets, load_dataset
from datasets.exceptions import DatasetGenerationError

from olmoe_ft.data import formats
from olmoe_ft.recipe import RecipeError
from olmoe_ft.recipe.schema import Source

MESSAGES = [{"role": Value("string"), "content": Value("string")}]
FEATURES = {
    "sft": Features({"messages": MESSAGES}),
    "dpo": Features({"prompt": MESSAGES, "chosen": MESSAGES, "rejected": MESSAGES}),
}
# A change in how rows are read must not be answered from a cache that was written before it.
READER_VERSION = hashlib.sha256(Path(formats.__file__).read_bytes()).hexdigest()[:16]


def load_mixture(sources: Sequence[Source], stage: str, seed: int) -> Dataset:
    """All sources of a recipe, converted, drawn by weight and shuffled.

    A source of weight w gives w times its rows: 0.2 a seeded fifth of them, 2.0 every row twice.

    Args:
        stage: "sft" for a `messages` column, "dpo" for `prompt`, `chosen` and `rejected`, each a list of messages.
        seed: of the draw and of the order; the same on every process.
    Raises:
        RecipeError: a file is missing or unreadable, a row is malformed, or nothing is left.
    """
    drawn = [_draw(load_source(source, stage), source, seed + index) for index, source in enumerate(sources)]
    mixture = concatenate_datasets(drawn).shuffle(seed=seed)
    if not len(mixture):
        paths = ", ".join(source.path for source in sources)
        raise RecipeError(f"{paths}: the weights leave no row to train on; raise `weight` or `max_rows`")
    return mixture


def load_source(source: Source, stage: str) -> Dataset:
    """One source in file order, every row converted."""
    path = Path(source.path)
    arguments: dict[str, Any] = {"source": source.model_dump(), "stage": stage, "version": READER_VERSION}
    if path.exists():
        stat = path.stat()
        arguments["file"] = (str(path.resolve()), stat.st_size, stat.st_mtime_ns)  # the cache's key, with the version
    try:
        return Dataset.from_generator(_converted, features=FEATURES[stage], gen_kwargs=arguments)
    except DatasetGenerationError as error:
        if isinstance(error.__cause__, RecipeError):
            raise error.__cause__ from None
        raise


def _converted(source: dict[str, Any], stage: str, **_: Any) -> Iterator[dict[str, Any]]:
    convert: Callable[[Any], dict[str, Any]]
    if stage == "dpo":
        convert = lambda row: formats.preference_pair(row, source["format"])  # noqa: E731
    else:
        convert = lambda row: {"messages": formats.conversation(row, source["format"])}  # noqa: E731
    count = 0
    for where, row in read_rows(source["path"], source["split"]):
        if source["max_rows"] is not None and count == source["max_rows"]:
            break
        if not isinstance(row, dict):
            raise RecipeError(f"{where}: a row must be an object with named fields, found {str(row)[:60]!r}")
        try:
            yield convert(row)
        except formats.RowError as error:
            raise RecipeError(f"{where}: {error}") from None
        count += 1
    if not count:
        raise RecipeError(f"{source['path']}: the data set is empty; give a file with at least one row")


def read_rows(path: str, split: str = "train") -> Iterator[tuple[str, Any]]:
    """Every row of a file or Hub data set, with the place to name in an error ("file.jsonl:12").

    Args:
        path: `.jsonl`, `.json` (an array, or one object a line), either gzipped, `.parquet`, `.csv`, or a Hub name.
    Raises:
        RecipeError: the file is missing, of another kind, not text, or not valid JSON.
    """
    file = Path(path)
    kind = file.name.removesuffix(".gz").rpartition(".")[2].lower()
    if kind in ("json", "jsonl") and file.is_file():
        yield from _json_rows(file, lines=kind == "jsonl")
    elif kind in ("parquet", "csv") and file.is_file():
        for index, row in enumerate(load_dataset(kind, data_files=str(file), split="train", streaming=True)):
            yield f"{path}:{index + 1}", row
    elif file.is_file():
        raise RecipeError(f"{path}: cannot read this kind of file; use .jsonl, .json, .parquet or .csv (.gz for JSON)")
    elif file.is_dir():
        raise RecipeError(f"{path} is a folder; name a file in it")
    elif file.suffix or path.startswith((".", "/", "data/", "runs/")) or path.count("/") != 1:
        raise RecipeError(f"{path} does not exist; check the path, it is relative to {Path.cwd()}")
    else:
        yield from _hub_rows(path, split)


def _json_rows(file: Path, lines: bool) -> Iterator[tuple[str, Any]]:
    opened = gzip.open if file.suffix == ".gz" else open
    try:
        with opened(file, "rt", encoding="utf-8") as stream:
            if not lines:
                text = stream.read()
                if text.lstrip().startswith("["):
                    yield from ((f"{file}, row {index + 1}", row) for index, row in enumerate(json.loads(text)))
                    return
                stream = iter(text.splitlines())  # type: ignore[assignment]
            for number, line in enumerate(stream, 1):
                if line.strip():
                    yield f"{file}:{number}", _json_line(line, f"{file}:{number}")
    except (UnicodeDecodeError, gzip.BadGzipFile, EOFError) as error:
        raise RecipeError(f"{file}: not readable as UTF-8 text ({error})") from None
    except json.JSONDecodeError as error:
        raise RecipeError(f"{file}:{error.lineno}: not valid JSON ({error.msg})") from None


def _json_line(line: str, where: str) -> Any:
    try:
        return json.loads(line)
    except json.JSONDecodeError as error:
        raise RecipeError(f"{where}: not valid JSON ({error.msg} at column {error.colno})") from None


def _hub_rows(name: str, split: str) -> Iterator[tuple[str, Any]]:
    try:
        rows = load_dataset(name, split=split)
    except (OSError, ValueError) as error:  # not there, no such split, or no network
        reason = str(error).splitlines()[0]
        raise RecipeError(f"{name} is neither a file here nor a data set that can be loaded: {reason}") from None
    for index, row in enumerate(rows):
        yield f"{name} row {index}", row


def _draw(dataset: Dataset, source: Source, seed: int) -> Dataset:
    whole, fraction = divmod(source.weight, 1)
    part = random.Random(seed).sample(range(len(dataset)), round(fraction * len(dataset)))
    return dataset.select([*range(len(dataset))] * int(whole) + sorted(part))


def tokens_hash(dataset: Dataset, columns: Sequence[str]) -> str:
    """A hash of columns of token lists, row by row, whatever made them."""
    digest = hashlib.sha256()
    for batch in dataset.select_columns(list(columns)).with_format("arrow").iter(batch_size=1000):
        for column in columns:
            digest.update(compute.list_value_length(batch[column]).to_numpy().tobytes())
            digest.update(compute.list_flatten(batch[column]).to_numpy().tobytes())
    return digest.hexdigest()[:32]
