"""The experts of several runs: their loads after training, and how far these are from the first run's."""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from olmoe_ft.report.comparison.compared import Compared
from olmoe_ft.report.files.atlas import AFTER, PROBE, Atlas, atlas
from olmoe_ft.report.page.blocks import Block, Cell, Column, HeatMap, HeatMaps, Prose, Section, Table
from olmoe_ft.report.sections.experts import entropy

CELLS = 200_000  # of all maps of a page together: about a megabyte

Loads = Mapping[str, np.ndarray]  # by a run's name, or a stage's: (layers, experts), in balanced loads


def experts_section(runs: Sequence[Compared]) -> Section | None:
    """The loads after training of each run and their difference from the first; None where fewer than two have any.

    Networks of another shape than the first one's are left out and named.
    """
    found = {one.label: known for one in runs if (known := atlas(one.run)) and known.load(PROBE, AFTER) is not None}
    if len(found) < 2:
        return None
    first, shape = next((label, one.shape) for label, one in found.items())
    alike = {label: one for label, one in found.items() if one.shape == shape}
    blocks: list[Block] = list(map(Prose, _left_out(runs, found, alike)))
    if len(alike) > 1:
        maps, more = _maps(alike)
        if tokens_differ(alike.values()):
            blocks.append(Prose("The probes are rows of each run's own training set, which are not the same here."))
        if more:
            blocks.append(Prose(f"Left out here, to keep the page small: {', '.join(more)}."))
        loads = {label: load for label, one in alike.items() if (load := one.load(PROBE, AFTER)) is not None}
        blocks = [HeatMaps("Load of each expert after training", maps), experts_table(loads), *blocks]
    lead = f"Which experts the tokens choose after training, and the difference from {first}."
    return Section("experts", "Experts", blocks, lead)


def _maps(found: Mapping[str, Atlas]) -> tuple[list[HeatMap], list[str]]:
    """Of each subject that two networks have; and the subjects for which there is no room."""
    subjects = dict.fromkeys(subject for one in found.values() for subject in one.loads)
    maps: list[HeatMap] = []
    left_out = []
    for subject in subjects:
        loads = {label: load for label, one in found.items() if (load := one.load(subject, AFTER)) is not None}
        new = _of_subject(subject, loads) if len(loads) > 1 else []
        if maps and (len(maps) + len(new)) * next(iter(loads.values()), np.zeros(0)).size > CELLS:
            left_out.append(subject)
        else:
            maps += new
    return maps, left_out


def _of_subject(subject: str, loads: Loads) -> list[HeatMap]:
    first = next(iter(loads))
    maps = [HeatMap(subject, label, rounded(load)) for label, load in loads.items()]
    return maps + [
        HeatMap(subject, f"{label} minus {first}", rounded(load - loads[first]), difference=True)
        for label, load in loads.items()
        if label != first
    ]


def experts_table(loads: Loads) -> Table:
    """One line a network: how even its load on the probe is, and how much of it is not where the first has it."""
    first = next(iter(loads.values()))
    numbers = ("x the balanced load", "entropy", "idle experts", "at other experts")
    rows: list[list[Cell | str]] = []
    for name, load in loads.items():
        layer, expert = divmod(int(load.argmax()), load.shape[1])
        moved = float(np.abs(load - first).sum() / 2 / first.sum())
        figures = [f"{load.max():.2f}", f"{entropy(load / load.shape[1]).mean():.3f}", f"{int((load == 0).sum()):,}"]
        rows.append([name, f"layer {layer} expert {expert}", *figures, Cell(f"{moved:.1%}", bar=moved)])
    note = (
        "Entropy: of the load, in nats, the mean of all layers. Idle: chosen by no token of the probe. At other "
        "experts: the share of the load that is not at the same expert as in the first line."
    )
    columns = [Column(""), Column("busiest expert"), *(Column(name, number=True) for name in numbers)]
    return Table("Load of the experts on the probe", columns, rows, note)


def rounded(values: np.ndarray) -> list[list[float]]:
    """As they are written to a page."""
    return values.round(3).tolist()


def tokens_differ(found: Iterable[Atlas]) -> bool:
    """Whether the probes are not the same tokens."""
    first, *others = (one.probe.tokens for one in found)
    return any(not np.array_equal(first, tokens) for tokens in others)


def _left_out(runs: Sequence[Compared], found: Mapping[str, Atlas], alike: Mapping[str, Atlas]) -> list[str]:
    notes = []
    for one in runs:
        if one.label not in found:
            notes.append(f"{one.label} has no probe after training, so it is left out here.")
        elif one.label not in alike:
            layers, experts = found[one.label].shape
            notes.append(f"{one.label} has {layers} x {experts} experts, so it is left out here.")
    return notes
