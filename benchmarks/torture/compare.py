"""Whether two runs of one recipe ended alike: weights bit by bit, records and figures in all but times."""

import json
import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import safetensors

from olmoe_ft.checkpoints.manifest import CARD, damage
from olmoe_ft.checkpoints.manifest import NAME as MANIFEST
from torture.configurations import Configuration

TIMES = ("train_runtime", "train_seconds", "eval_runtime", "_per_second", "perf/")
"""Parts of the names of what is measured with a clock, or of memory."""
ABOVE = re.compile(rb"[^\s\"']*/(?=runs/)")


def differences(configuration: Configuration, found: Path, expected: Path) -> Iterator[str]:
    """What is not as in a run that nothing broke, and which folders are not as their manifests have them.

    Args:
        found: the workspace of the run that was broken, and went on to its end.
        expected: that of the other.
    """
    for run in configuration.runs:
        for folder in (run / "final", run / "base"):
            yield from _folders(folder, found, expected)
            if (found / folder).exists() and (text := damage(found / folder)) is not None:
                yield f"{folder}: {text}"
        if (text := damage(found / run, alone=False)) is not None:
            yield f"{run}: {text}"
        yield from _records(run / "metrics.jsonl", found, expected)
        yield from _summaries(run / "summary.json", found, expected)


def _folders(folder: Path, found: Path, expected: Path) -> Iterator[str]:
    names = [
        {str(file.relative_to(side / folder)) for file in (side / folder).rglob("*") if not file.is_dir()}
        for side in (found, expected)
    ]
    if names[0] != names[1]:
        yield f"{folder}: other files: {', '.join(sorted(names[0] ^ names[1]))}"
    for name in sorted(names[0] & names[1]):
        sides = [_content(side / folder / name) for side in (found, expected)]
        if name in (MANIFEST, CARD):  # with checksums of files in which folders are named; with times
            continue
        if sides[0] != sides[1] and (not name.endswith(".safetensors") or _tensors(sides[0]) != _tensors(sides[1])):
            yield f"{folder / name} differs"


def _content(file: Path) -> bytes:
    """What stands in a file, without the folders above `runs/`: a damaged run is a copy of one that was elsewhere."""
    try:
        content = file.read_bytes()
    except OSError as error:  # a link to nowhere
        return str(error).encode()
    if file.name == "adapter_config.json":  # PEFT writes sets, in the order of an interpreter's hashes
        with suppress(ValueError):
            values = {
                name: sorted(value) if isinstance(value, list) else value for name, value in json.loads(content).items()
            }
            content = json.dumps(values).encode()
    return content if file.suffix == ".safetensors" else ABOVE.sub(b"", content)


def _tensors(content: bytes) -> dict[str, Any]:
    """Every tensor's type, shape and bytes, whatever order they stand in."""
    try:
        return dict(safetensors.deserialize(content))
    except safetensors.SafetensorError as error:
        return {"": str(error)}


def _records(file: Path, found: Path, expected: Path) -> Iterator[str]:
    sides = []
    for side in (found, expected):
        try:
            sides.append([_without_times(json.loads(line)) for line in (side / file).read_text().splitlines()])
        except (OSError, ValueError) as error:
            yield f"{file}: {error}"
            return
    if len(sides[0]) != len(sides[1]):
        steps = [[record["step"] for record in side] for side in sides]
        yield f"{file}: records of the steps {steps[0]}, not {steps[1]}"
        return
    for number, (ours, theirs) in enumerate(zip(*sides, strict=True), 1):
        if names := [name for name in ours.keys() | theirs.keys() if ours.get(name) != theirs.get(name)]:
            yield f"{file}: record {number} differs in {', '.join(sorted(names))}"


def _summaries(file: Path, found: Path, expected: Path) -> Iterator[str]:
    try:
        ours, theirs = (_without_times(json.loads((side / file).read_text())) for side in (found, expected))
    except (OSError, ValueError, AttributeError) as error:
        yield f"{file}: {error}"
        return
    if names := [name for name in ours.keys() | theirs.keys() if ours.get(name) != theirs.get(name)]:
        yield f"{file} differs in {', '.join(sorted(names))}"


def _without_times(values: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if not any(part in name for part in TIMES)}
