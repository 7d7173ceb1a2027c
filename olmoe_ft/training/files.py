"""The files of a run: written whole or not at all, and read as nothing where they are damaged."""

import json
import math
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from olmoe_ft.checkpoints.run_checkpoints import put_aside


def write_text(file: Path, text: str) -> None:
    """Write a file whole or not at all."""
    write_whole(file, lambda partial: partial.write_text(text, encoding="utf-8"))


def write_whole(file: Path, write: Callable[[Path], Any]) -> None:
    """Have a file written under another name, and give it its own when it is complete."""
    partial = file.with_name(file.name + ".partial")
    for place in (partial, file):
        if place.is_dir():
            put_aside(place)
    write(partial)
    os.replace(partial, file)


def read_yaml(file: Path) -> dict[str, Any] | None:
    """What a YAML file holds; None where it is not there, or holds no mapping."""
    try:
        found = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def to_json(value: Any, **how: Any) -> str:
    """Valid JSON, which knows no NaN: numbers that are not finite are the texts "NaN", "Infinity" and "-Infinity".

    So they are in the JSON of protocol buffers; `float` reads them.
    """
    return json.dumps(_without_nan(value), allow_nan=False, **how)


def free_space(path: Path) -> int:
    """Bytes that are free on the disk that a folder is on, or will be."""
    return shutil.disk_usage(existing(path)).free


def existing(path: Path) -> Path:
    """The innermost folder of a path that is there."""
    return next(place for place in (path.absolute(), *path.absolute().parents) if place.exists())


def _without_nan(value: Any) -> Any:
    match value:
        case float() if not math.isfinite(value):
            return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
        case dict():
            return {key: _without_nan(item) for key, item in value.items()}
        case list() | tuple():
            return [_without_nan(item) for item in value]
    return value
