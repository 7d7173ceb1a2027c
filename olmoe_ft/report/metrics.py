"""The records of `metrics.jsonl`, name by name. Read as it is while a run writes it, or after one was killed."""

import json
import re
from array import array
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np

# What is logged of every layer is most of the file, and no curve but for the drift: it is cut out before a line is
# parsed, which makes reading four times as fast. An entry is cut with the comma after it, and only where it surely
# ends: in a list there is neither another list nor a text. Whatever is written otherwise is parsed, and left out then.
LAYER = rb"router/(?:load|entropy|max_violation|dead_experts)/layer_\d+"
WORD = rb"[-+.0-9A-Za-z]+"  # a number, true, null; spelled out, as Python matches \w at half the speed
CUT = re.compile(rb'"%(layer)b": (?:\[[-+.0-9A-Za-z, ]*\]|%(word)b|"%(word)b"), ' % {b"layer": LAYER, b"word": WORD})
OF_LAYER = re.compile(LAYER.decode())
BUFFER = 2**18  # bytes; a line has 14,000 with 16 layers of 64 experts, and Python's own buffer 8,192
LAST_STEP = 2**53
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
    found: dict[str, tuple[array, array] | None] = {}  # None of what is logged of every layer
    records = damaged = 0
    if not file.is_file():
        return Metrics()
    with file.open("rb", buffering=BUFFER) as stream:
        for line in stream:
            record = _record(line)
            if record is None:
                damaged += 1
                continue
            records += 1
            step = record.pop("step")
            for name, value in record.items():
                number = value if type(value) is float else _number(value)
                if number is None:
                    continue
                if name not in found:
                    found[name] = None if OF_LAYER.fullmatch(name) else (array("q"), array("d"))
                if (lists := found[name]) is not None:
                    lists[0].append(step)
                    lists[1].append(number)
    of = {name: _values(*lists) for name, lists in found.items() if lists is not None}
    return Metrics(of, records, damaged)


def _record(line: bytes) -> dict | None:
    try:
        record = json.loads(CUT.sub(b"", line))
    except (ValueError, RecursionError):
        return None
    if not isinstance(record, dict):
        return None
    step = record.get("step")
    return record if type(step) is int and 0 <= step <= LAST_STEP else None


def _number(value: object) -> float | None:
    if isinstance(value, str):
        return UNFINITE.get(value)
    if not isinstance(value, int | float) or isinstance(value, bool):
        return None
    try:
        return float(value)
    except OverflowError:  # an integer of more than 308 digits
        return UNFINITE["Infinity" if value > 0 else "-Infinity"]


def _values(steps: array, values: array) -> Values:
    """In the order of steps; of several values of one step the newest, as after a resume."""
    # the newest comes first, and of equal steps `unique` gives the first
    ordered, places = np.unique(np.array(steps, dtype=np.int64)[::-1], return_index=True)
    return Values(ordered, np.array(values, dtype=np.float64)[::-1][places])
