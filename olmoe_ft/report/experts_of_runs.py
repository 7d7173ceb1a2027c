"""The experts of several runs: their load on the probe after training, and how far it is from the first run's."""

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file

from olmoe_ft.report.blocks import Block, Cell, Column, HeatMap, HeatMaps, Prose, Section, Table
from olmoe_ft.report.compared import Compared
from olmoe_ft.report.run_files import RunFiles

PROBE = "all tokens of the probe"


@dataclass(frozen=True)
class Loads:
    """Of the probe's tokens, in balanced loads: 1 is an even share."""

    before: np.ndarray
    """(layers, experts)."""
    after: np.ndarray | None
    """The same; None of a run that has not ended."""
    tokens: str
    """A hash of the probe's tokens."""


def probe_loads(run: RunFiles) -> Loads | None:
    """None where the run has no probe that can be read."""
    file = run.path / "routing_probe.safetensors"
    if not file.is_file():
        return None
    try:
        probe = load_file(file)
        experts = int(probe["experts"])
        before, after = (_load(probe[name], experts) if name in probe else None for name in ("start", "end"))
        tokens = sha256(probe["input_ids"].tobytes() + probe["counted"].tobytes()).hexdigest()
    except (OSError, SafetensorError, KeyError, ValueError, TypeError):
        run.unreadable.append(f"{file} cannot be read")
        return None
    return None if before is None else Loads(before, after, tokens)


def _load(choices: np.ndarray, experts: int) -> np.ndarray:
    """Experts chosen (L, T, K) -> load in balanced loads (L, E)."""
    counts = np.stack([np.bincount(layer.ravel(), minlength=experts) for layer in choices])
    return counts / np.maximum(counts.mean(axis=1, keepdims=True), 1e-9)


def experts_section(runs: Sequence[Compared]) -> Section | None:
    """The load after training of each run and its difference from the first; None where fewer than two have one.

    Networks of another shape than the first one's are left out and named.
    """
    loads = {one.label: found.after for one in runs if (found := probe_loads(one.run)) and found.after is not None}
    if len(loads) < 2:
        return None
    first, shape = next((label, load.shape) for label, load in loads.items())
    alike = {label: load for label, load in loads.items() if load.shape == shape}
    notes = _left_out(runs, loads, alike)
    tokens = {found.tokens for one in runs if one.label in alike and (found := probe_loads(one.run))}
    if len(tokens) > 1:
        notes.append("The probes are rows of each run's own training set, and these are not the same here.")
    blocks: list[Block] = [Prose(note) for note in notes]
    if len(alike) > 1:
        maps = [HeatMap(PROBE, label, rounded(load)) for label, load in alike.items()]
        maps += [
            HeatMap(PROBE, f"{label} minus {first}", rounded(load - alike[first]), difference=True)
            for label, load in alike.items()
            if label != first
        ]
        blocks = [HeatMaps("Load of the experts after training", maps), experts_table(alike), *blocks]
    lead = f"Which experts the probe's tokens choose after training, and the difference from {first}."
    return Section("experts", "Experts", blocks, lead)


def experts_table(loads: dict[str, np.ndarray]) -> Table:
    """One line a network: how even its load is, and how much of it the first one gives to other experts.

    Args:
        loads: by name, in balanced loads, all of one shape.
    """
    first = next(iter(loads.values()))
    columns = [Column("run"), Column("busiest expert"), Column("x the balanced load", True), Column("entropy", True)]
    columns += [Column("idle experts", True), Column("at other experts", True)]
    rows: list[list[Cell | str]] = []
    for name, load in loads.items():
        layer, expert = np.unravel_index(int(load.argmax()), load.shape)
        shares = load / load.shape[1]
        with np.errstate(divide="ignore", invalid="ignore"):
            entropy = -np.where(shares > 0, shares * np.log(shares), 0.0).sum(axis=1).mean()
        moved = float(np.abs(load - first).sum() / 2 / first.sum())
        where, busiest, idle = f"layer {layer} expert {expert}", f"{load.max():.2f}", f"{int((load == 0).sum()):,}"
        rows.append([name, where, busiest, Cell(f"{entropy:.3f}", "nats"), idle, Cell(f"{moved:.1%}", bar=moved)])
    note = (
        "Entropy: of the load, the mean of all layers. Idle: chosen by no token of the probe. At other experts: the "
        "share of the load that is not at the same expert as in the first line."
    )
    return Table("Load of the experts", columns, rows, note)


def rounded(values: np.ndarray) -> list[list[float]]:
    """As they are written to a page."""
    return np.round(values, 3).tolist()


def _left_out(runs: Sequence[Compared], loads: dict[str, np.ndarray], alike: dict[str, np.ndarray]) -> list[str]:
    notes = []
    for one in runs:
        if one.label not in loads:
            notes.append(f"{one.label} has no probe after training, so it is left out here.")
        elif one.label not in alike:
            layers, experts = loads[one.label].shape
            notes.append(f"{one.label} has {layers} layers of {experts} experts, so it is left out here.")
    return notes
