"""The path of a source: a file, a folder or a Hub dataset. Reads its rows and hashes its content."""

import os
import re
from collections.abc import Iterator
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import xxhash
import yaml
from huggingface_hub import metadata_load

from olmoe_ft.data.class_names import ClassNames
from olmoe_ft.data.files import READABLE, READERS, Rows, file_rows, is_readable, kind_of
from olmoe_ft.hub import error_of_dataset, reach_hub, refusal
from olmoe_ft.recipe import UserError
from olmoe_ft.recipe.paths import sought

BLOCK = 1 << 22  # bytes hashed at once
OTHER_SPLIT = re.compile(r"(^|[-._ ])(test|testing|valid|validation|dev|eval|evaluation)([-._ 0-9])", re.IGNORECASE)


def read_rows(path: str, split: str = "train", config: str | None = None, revision: str | None = None) -> Rows:
    """Every row of a source, in order, with its place.

    Args:
        split, config, revision: of a Hub dataset, or of a folder laid out like one.
    Raises:
        UserError: the source is missing, or its files are of an unknown kind, not text or not valid.
    """
    if os.path.isdir(path):
        yield from _folder_rows(Path(path), split, config, revision)
    elif os.path.exists(path):
        if split != "train" or config or revision:
            raise UserError(
                f"{path}: this is a file, which has no split, config or revision; remove them from the recipe"
            )
        yield from file_rows(Path(path))
    else:
        _refuse_missing(path)
        for index, row in enumerate(_plain(_loaded(path, split, config, revision)), 1):
            yield f"{path}, row {index}", row


def content_hash(path: str, split: str = "train", config: str | None = None, revision: str | None = None) -> str:
    """A hash of a source's content; it does not depend on where the files are or when they were written.

    Raises:
        UserError: the source is missing.
    """
    if not os.path.exists(path):
        _refuse_missing(path)
        return _loaded(path, split, config, revision)._fingerprint
    place = Path(path)
    if not place.is_dir():
        files = [place]
    elif _is_saved(place):
        files = sorted(member for member in place.rglob("*") if member.is_file())
    else:
        files = _files_of(place, split, config, revision)
    stats = [(file, file.stat()) for file in files]
    return _hash_of(tuple((file, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns) for file, stat in stats))


@cache
def _hash_of(files: tuple[tuple[Path, int, int, int], ...]) -> str:
    """The hash of files in order; a process reads them once, as long as sizes and times do not change."""
    digest = xxhash.xxh3_128()
    try:
        for file, size, *_ in files:
            digest.update(f"{file.name if len(files) > 1 else ''} {size}\n".encode())
            with file.open("rb") as stream:
                while block := stream.read(BLOCK):
                    digest.update(block)
    except OSError as error:
        raise UserError(
            f"{file}: cannot be read to its end ({error}); check the disk, or copy the file again"
        ) from None
    return digest.hexdigest()


def _refuse_missing(path: str) -> None:
    """Refuse a path that does not exist and cannot be the name of a Hub dataset."""
    looks_like_a_file = path.startswith((".", "/", "~", "data/", "runs/", "configs/")) or path.count("/") > 1
    if is_readable(path) or kind_of(path) in READERS or looks_like_a_file:
        raise UserError(f"{path}: there is no such file; check the path ({sought(path)})")


def _folder_rows(folder: Path, split: str, config: str | None, revision: str | None) -> Rows:
    """A folder's rows, by the same readers as single files; a folder written by `save_to_disk` is loaded as it is."""
    if _is_saved(folder):
        if config or revision:
            raise UserError(
                f"{folder}: written by save_to_disk, which has no config or revision; remove them from the recipe"
            )
        for index, row in enumerate(_saved(folder, split), 1):
            yield f"{folder}, row {index}", row
        return
    for file in _files_of(folder, split, config, revision):
        yield from file_rows(file)


def _is_saved(folder: Path) -> bool:
    return (folder / "state.json").exists() or (folder / "dataset_dict.json").exists()


def _saved(folder: Path, split: str) -> Iterator[Any]:
    from datasets import DatasetDict, load_from_disk

    try:
        found = load_from_disk(str(folder))
    except Exception as error:  # as `_loaded`
        raise UserError(
            f"{folder}: written by save_to_disk, but cannot be loaded ({_reason(error)}); save it again"
        ) from None
    if isinstance(found, DatasetDict):
        if split not in found:
            raise UserError(f"{folder}: found no split {split}; allowed: {', '.join(found)}")
        found = found[split]
    elif split not in ("train", str(found.split)):  # "train" is the default of a recipe
        raise UserError(f"{folder}: the folder has no splits; remove `split` from the recipe")
    return _plain(found)


def _plain(rows: Any) -> Iterator[dict[str, Any]]:
    """Rows of a dataset with pictures and sounds as they are stored, so that they are recognised without being opened,
    and with names in place of the numbers that mean them."""
    names = ClassNames(rows.features.to_dict())
    for name, feature in rows.features.items():
        if (stored := _stored(feature)) != feature:
            rows = rows.cast_column(name, stored)
    return map(names.given_in, rows)


def _stored(feature: Any) -> Any:
    from datasets import Audio, Image, List, Video

    if isinstance(feature, Audio | Image | Video):
        return type(feature)(decode=False)
    if isinstance(feature, List):
        return List(_stored(feature.feature), length=feature.length)
    return {name: _stored(inner) for name, inner in feature.items()} if isinstance(feature, dict) else feature


def _files_of(folder: Path, split: str, config: str | None, revision: str | None) -> list[Path]:
    """The files of a split, found as for a Hub dataset: by their names, or as the folder's README.md says.

    Raises:
        UserError: there are none, they are of an unknown kind, or a file with rows belongs to no split.
    """
    import datasets

    _refuse_growing_card(folder / "README.md")
    try:
        builder = datasets.load_dataset_builder(str(folder), config, revision=revision)
    except Exception as error:  # no such configuration, no file of rows, an unreadable card
        raise UserError(f"{folder}: no dataset can be loaded from this folder ({_reason(error)}); {READABLE}") from None
    splits = {str(name): [Path(file) for file in files] for name, files in (builder.config.data_files or {}).items()}
    if split not in splits:
        raise UserError(f"{folder}: found no split {split}; allowed: {', '.join(splits) or 'none'}")
    files = splits[split]
    if other := next((file for file in files if not is_readable(file)), None):
        raise UserError(f"{folder}: {other.name} is not a file of rows; {READABLE}")
    card = folder / "README.md"
    if not (card.exists() and "configs" in (metadata_load(card) or {})):
        _refuse_left_out(folder, [file for files in splits.values() for file in files])
        if split == "train" and (other := next((file for file in files if OTHER_SPLIT.search(file.name)), None)):
            raise UserError(
                f"{folder}: {other.name} would be read with the training rows; rename it to something like "
                "test.jsonl, in "
                "lower case, or list the files one by one as sources"
            )
    return files


def _refuse_growing_card(card: Path) -> None:
    """Refuse YAML aliases in a dataset card: a few aliases of aliases expand to gigabytes."""
    if not card.is_file():
        return
    head = card.read_text(encoding="utf-8", errors="replace").partition("---")[2].partition("\n---")[0]
    with suppress(yaml.YAMLError):  # the library reports this error
        if any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(head)):
            raise UserError(
                f"{card}: found YAML aliases in its header; write out the values, or list the files as sources"
            )


def _refuse_left_out(folder: Path, read: list[Path]) -> None:
    """Refuse a folder with a file of rows that belongs to no split: it would be lost without a word."""
    from datasets.data_files import FILES_TO_IGNORE

    taken = {file.resolve() for file in read}
    for file in sorted(folder.rglob("*")):
        hidden = any(part.startswith((".", "__")) for part in file.relative_to(folder).parts)
        wanted = file.is_file() and is_readable(file) and not hidden and file.name not in FILES_TO_IGNORE
        if wanted and file.resolve() not in taken:
            raise UserError(
                f"{folder}: {file.relative_to(folder)} belongs to no split, so it would be left out; "
                "list the files one by one as sources, or move it away"
            )


@cache
def _loaded(name: str, split: str, config: str | None, revision: str | None) -> Any:
    """A split of a dataset on the Hub, from the cache if it is there."""
    reach_hub(name, "dataset")
    import datasets

    try:
        return datasets.load_dataset(name, config, split=split, revision=revision)
    except datasets.exceptions.DatasetNotFoundError as error:
        raise refusal(name, "dataset", error_of_dataset(name, revision, error)) from None
    except Exception as error:  # no such split or configuration, no network, no readable file
        raise refusal(name, "dataset", error) from None


def _reason(error: Exception) -> str:
    return " ".join((str(error) or type(error).__name__).splitlines()[:2])
