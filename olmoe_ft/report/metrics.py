"""The records of `metrics.jsonl`, name by name. Read as it is while a run writes it, or after one was killed."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np

# What is logged of every layer is most of the file, and no curve but for the drift: it is cut out before a line is
# parsed, which makes reading three times as fast.
OF_LAYERS = re.compile(
    rb'"router/(?:load|entropy|max_violation|dead_experts)/layer_\d+": (?:\[[^\]]*\]|"?[-+.\w]+"?)(?:, )?'
)
UNFINITE = {"NaN": float("nan"), "Infinity": float("inf"), "-Infinity": float("-inf")}  # JSON has texts for them


class Values(NamedTuple):
    """The values of one metric, where a record has it."""

    steps: np.ndarray
    """(N,) int64, rising."""
    values: np.ndarray
    """(N,) float64; not finite where the number was not."""


@dataclass(frozen=True)
class Metrics:
    """All metrics that are one number."""

    of: Mapping[str, Values] = field(default_factory=dict)
    records: int = 0
    damaged: int = 0
    """Lines that are no records, such as the last one of a run that was killed."""

    def __contains__(self, name: str) -> bool:
        return name in self.of

    def __getitem__(self, name: str) -> Values:
        return self.of[name]

    def last(self, name: str) -> float | None:
        """The newest value; None where no record has it."""
        return float(self.of[name].values[-1]) if name in self.of else None

    @property
    def last_step(self) -> int:
        """The newest optimizer step with a record; 0 where there is none."""
        return max((int(one.steps[-1]) for one in self.of.values()), default=0)


def read_metrics(file: Path) -> Metrics:
    """Read the records of a run; none where the file is not there."""
    found: dict[str, tuple[list[int], list[float]]] = {}
    records = damaged = 0
    if not file.is_file():
        return Metrics()
    with file.open("rb") as stream:
        for line in stream:
            record = _record(line)
            if record is None:
                damaged += 1
                continue
            records += 1
            step = record.pop("step")
            for name, value in record.items():
                if (number := _number(value)) is not None:
                    steps, values = found.setdefault(name, ([], []))
                    steps.append(step)
                    values.append(number)
    return Metrics({name: _values(*lists) for name, lists in found.items()}, records, damaged)


def _record(line: bytes) -> dict | None:
    try:
        record = json.loads(OF_LAYERS.sub(b"", line).replace(b", }", b"}"))
    except (ValueError, RecursionError):
        return None
    return record if isinstance(record, dict) and type(record.get("step")) is int else None


def _number(value: object) -> float | None:
    if isinstance(value, str):
        return UNFINITE.get(value)
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def _values(steps: list[int], values: list[float]) -> Values:
    """In the order of steps; of several values of one step the newest, as after a resume."""
    newest = dict(zip(steps, values, strict=True))
    ordered = sorted(newest)
    return Values(np.array(ordered, dtype=np.int64), np.array([newest[step] for step in ordered]))
