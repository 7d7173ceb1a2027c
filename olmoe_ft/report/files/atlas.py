"""How much each expert is used, before training and after it: by the probe, by data source, by benchmark.

Shapes: L layers, E experts, K experts per token, T tokens of the probe.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from safetensors import SafetensorError, safe_open

from olmoe_ft.report.files.evaluated import Time
from olmoe_ft.report.files.run_files import RunFiles
from olmoe_ft.training.router.loads import load_of, shares

BEFORE: Literal["before"] = "before"
AFTER: Literal["after"] = "after"
PROBE = "all probe tokens"
TRAINED = "tokens trained on"
MOST_EXPERTS = 2**16  # of a layer, by far; a damaged file may say more than fit into memory
ENDS = {BEFORE: "start", AFTER: "end"}  # when -> its name in the probe's file

When = Mapping[str, np.ndarray]
"""By time ("before", "after", "step 40"), something of that time."""


@dataclass(frozen=True)
class Probe:
    """Fixed tokens of the training set, and the experts they went to."""

    tokens: np.ndarray
    """(T,) ids of those that count."""
    rows: int
    texts: Mapping[int, str]
    """Of token ids; empty in runs of older versions."""
    choices: When
    """"before", and "after" of a run that has finished: (L, T, K)."""

    @property
    def agreement(self) -> np.ndarray | None:
        """(L,): the share of choices after training that are those before it; None without both."""
        if not {BEFORE, AFTER} <= self.choices.keys():
            return None
        same = self.choices[BEFORE][..., None] == self.choices[AFTER][..., None, :]
        return same.any(axis=-1).mean(axis=(1, 2))


@dataclass(frozen=True)
class Atlas:
    """Loads are shares of a layer's choices, (L, E); times E they are balanced loads, of which 1 is an even share."""

    shape: tuple[int, int]
    """(L, E)."""
    per_token: int
    """K."""
    probe: Probe
    loads: Mapping[str, When]
    """By subject: `PROBE`, each data source by its path, each "benchmark x"; then by time. Of a run without an end
    `TRAINED` too, the loads of the last record that it has in its table."""

    def load(self, subject: str, when: str) -> np.ndarray | None:
        """(L, E) in balanced loads; None where it is not known."""
        found = self.loads.get(subject, {}).get(when)
        return None if found is None else found * self.shape[1]


def atlas(run: RunFiles) -> Atlas | None:
    """The atlas of a run; None where there is no probe that can be read."""
    file = run.path / "routing_probe.safetensors"
    if not file.exists():
        return None
    try:
        probe, loads = _of_training_rows(*_read(file))
    except (OSError, SafetensorError, KeyError, IndexError, ValueError, TypeError, AttributeError, RecursionError):
        _unreadable(run, f"{file} cannot be read")
        return None
    layers, experts = loads[PROBE][BEFORE].shape
    loads |= _of_benchmarks(run, (layers, experts))
    if AFTER not in probe.choices and (last := _last_trained(run, (layers, experts))):
        loads[TRAINED] = last
    return Atlas((layers, experts), probe.choices[BEFORE].shape[2], probe, loads)


def _read(file: Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    with safe_open(file, "numpy") as stream:
        return {name: stream.get_tensor(name) for name in stream.keys()}, stream.metadata() or {}  # noqa: SIM118


def _of_training_rows(tensors: Mapping[str, np.ndarray], about: Mapping[str, str]) -> tuple[Probe, dict[str, When]]:
    """The probe, and the loads of it and of the data sources.

    Raises:
        ValueError, KeyError, IndexError, TypeError, AttributeError: the file does not hold what it should.
    """
    experts, counted = int(tensors["experts"]), tensors["counted"]
    choices = {when: tensors[name] for when, name in ENDS.items() if name in tensors}
    tokens = tensors["input_ids"][counted]
    texts = {int(token): str(text) for token, text in json.loads(about.get("texts", "{}")).items()}
    layers, count, _ = choices[BEFORE].shape
    same = all(one.shape == choices[BEFORE].shape for one in choices.values())
    if not (0 < experts <= MOST_EXPERTS and 0 < count == len(tokens) and same):
        raise ValueError("the sizes do not match")
    loads: dict[str, When] = {PROBE: {when: load_of(one, experts) for when, one in choices.items()}}
    loads |= _of_sources(tensors, about)
    if {one.shape for whens in loads.values() for one in whens.values()} != {(layers, experts)}:
        raise ValueError("the loads are not those of one network")
    return Probe(tokens, int(counted.any(axis=1).sum()), texts, choices), loads


def _of_sources(tensors: Mapping[str, np.ndarray], about: Mapping[str, str]) -> dict[str, When]:
    """None in runs of older versions."""
    names = json.loads(about.get("sources", "[]"))
    counts = {when: tensors[f"sources_{name}"] for when, name in ENDS.items() if f"sources_{name}" in tensors}
    return {name: {when: shares(one[index]) for when, one in counts.items()} for index, name in enumerate(names)}


def _of_benchmarks(run: RunFiles, shape: tuple[int, int]) -> dict[str, When]:
    found: dict[str, dict[str, np.ndarray]] = {}
    evaluated = run.evaluated
    times: tuple[Time, ...] = (BEFORE, evaluated.latest)
    for when, (task, measured) in ((time, one) for time in times for one in evaluated.at(time).items()):
        if measured.seen is not None and (rows := measured.seen.loads.get(task)):
            load = np.array(rows) if len({*map(len, rows)}) == 1 else np.zeros(0)
            if load.shape == shape and np.isfinite(load).all():
                found.setdefault(f"benchmark {task}", {})[evaluated.title(when)] = load
            else:
                _unreadable(run, f"{run.path / 'evaluation.json'}: the loads of {task} are not of this network")
    return {**found}


def _last_trained(run: RunFiles, shape: tuple[int, int]) -> When:
    """The newest loads in the table of records, which is written with each checkpoint; empty where there are none."""
    import pyarrow.parquet as pq
    from pyarrow import ArrowException

    file = run.path / "routing.parquet"
    if not file.exists():
        return {}
    try:
        rows = pq.read_table(file, columns=["step", "layer", "load"]).to_pylist()
        step = max((row["step"] for row in rows), default=None)
        load = np.array([row["load"] for row in sorted(rows, key=lambda row: row["layer"]) if row["step"] == step])
    except (OSError, ArrowException, KeyError, ValueError, TypeError):
        _unreadable(run, f"{file} cannot be read")
        return {}
    return {f"step {step}": load} if load.shape == shape else {}


def _unreadable(run: RunFiles, what: str) -> None:
    if what not in run.unreadable:
        run.unreadable.append(what)
