"""The expert atlas: what training has done to the experts, which tokens they serve, and for whom."""

import re
from collections import Counter
from collections.abc import Sequence

import numpy as np

from olmoe_ft.report.files.atlas import AFTER, BEFORE, PROBE, TRAINED, Atlas, Probe, atlas
from olmoe_ft.report.files.metrics import Metrics, Values
from olmoe_ft.report.files.run_files import RunFiles
from olmoe_ft.report.page.blocks import (
    Block,
    Cell,
    Column,
    Curves,
    HeatMap,
    HeatMaps,
    Prose,
    Section,
    Series,
    Table,
)
from olmoe_ft.report.sections.thin import thinned

MOST_CHANGED = 10  # experts
TOKENS = 5  # shown of an expert
LONGEST = 20  # characters of a token
DRIFT = re.compile(r"router/drift_agreement/layer_(\d+)")
DRAWN = 400  # points of a layer's drift: there may be 64 layers
VISIBLE = str.maketrans({" ": "␣", "\n": "↵", "\t": "⇥", "\r": "␍"})
SPECIFIC = (
    "Of the probe's tokens those that chose the expert more often than a router without preference would, the clearest "
    "first. ×24/45: 24 of its 45 occurrences chose it."
)


def experts(run: RunFiles) -> Section | None:
    """The section; None where the run has no probe that can be read."""
    if (found := atlas(run)) is None:
        return None
    blocks: list[Block] = [heat_maps("Load of each expert", found)]
    if (drift := _drift(run.metrics, found)) is not None:
        blocks.append(drift)
    blocks.append(_layers(found))
    if found.load(PROBE, AFTER) is None:
        blocks.append(Prose(_without_end(found)))
    else:
        blocks.append(_most_changed(found))
    return Section("experts", "Expert atlas", blocks, _lead(found))


def heat_maps(title: str, found: Atlas) -> HeatMaps:
    """Of every subject the loads of each time, and their difference."""
    maps = []
    for subject, whens in found.loads.items():
        for when in whens:
            maps.append(HeatMap(subject, when, _drawn(found.load(subject, when))))
        before, after = (found.load(subject, when) for when in (BEFORE, AFTER))
        if before is not None and after is not None:
            maps.append(HeatMap(subject, "difference", _drawn(after - before), difference=True))
    note = (
        "1 is an even share. The probe and the data sources are rows of the training set, cut to 128 tokens; a "
        "benchmark's load is that of all tokens the model has generated or scored in it."
    )
    return HeatMaps(title, maps, note)


def entropy(load: np.ndarray) -> np.ndarray:
    """Of shares (L, E), in nats: ln E where the load is even, 0 where one expert has all."""
    known = np.where(load > 0, load, 1.0)
    return -(known * np.log(known)).sum(axis=1) + 0.0  # no -0


def max_violation(load: np.ndarray) -> np.ndarray:
    """Of shares (L, E): the busiest expert's load over the mean, minus 1."""
    return load.max(axis=1) * load.shape[1] - 1


def _lead(found: Atlas) -> str:
    looked = f"{len(found.probe.tokens):,} tokens of {found.probe.rows} training sequences"
    if (agreement := found.probe.agreement) is None:
        return f"{looked} were looked at before the first step; the look at the end is missing."
    unrelated = found.per_token / found.shape[1]
    return (
        f"{looked} were looked at before the first step and at the end: {agreement.mean():.0%} of the routers' choices "
        f"are the same. Between unrelated routers it would be {unrelated:.0%}."
    )


def _without_end(found: Atlas) -> str:
    text = (
        "The run has not come to its end, where the same tokens are looked at again: loads after training are missing."
    )
    if TRAINED in found.loads:
        (when,) = found.loads[TRAINED]
        text += f' The loads of "{TRAINED}" are those that training itself had at {when}, the last in routing.parquet.'
    return text


def _drift(metrics: Metrics, found: Atlas) -> Curves | None:
    layers = sorted((int(match[1]), name) for name in metrics.of if (match := DRIFT.fullmatch(name)))
    if not layers:
        return None
    series = [_from_the_start(f"layer {layer}", metrics[name]) for layer, name in layers]
    unrelated = found.per_token / found.shape[1]
    last = max(one.x[-1] for one in series)
    series.append(Series("unrelated routers", [0, last], [unrelated, unrelated], dashed=True))
    return Curves(
        "Choices that agree with the start",
        series,
        unit="share of the choices",
        smooth=False,
        note="router/drift_agreement, by layer, on the probe's tokens",
    )


def _from_the_start(name: str, values: Values) -> Series:
    """At step 0 all choices agree."""
    whole = Values(np.concatenate([[0], values.steps]), np.concatenate([[1.0], values.values]))
    return thinned(name, whole, most=DRAWN)


def _layers(found: Atlas) -> Table:
    whens = [when for when in (BEFORE, AFTER) if found.load(PROBE, when) is not None]
    kinds = {"entropy": ".3f", "max violation": ".2f", "idle experts": "d"}
    columns = [Column("layer")] + [Column(f"{kind} {when}", number=True) for kind in kinds for when in whens]
    values: list[list[str]] = []
    for kind, form in kinds.items():
        values += [[format(value, form) for value in _of_layers(kind, found.loads[PROBE][when])] for when in whens]
    if (agreement := found.probe.agreement) is not None:
        columns.append(Column("same choices", number=True))
        values.append([f"{share:.1%}" for share in agreement])
    return Table(
        "Layer by layer, on the probe",
        columns,
        [[str(layer), *(column[layer] for column in values)] for layer in range(found.shape[0])],
        note=f"Entropy of the load in nats: {np.log(found.shape[1]):.3f} where it is even. Max violation: the busiest "
        "expert's load over the mean, minus 1. Idle: no token of the probe chose it.",
    )


def _of_layers(kind: str, load: np.ndarray) -> list:
    return {
        "entropy": entropy(load),
        "max violation": max_violation(load),
        "idle experts": (load == 0).sum(axis=1),
    }[kind].tolist()


def _most_changed(found: Atlas) -> Table:
    before, after = found.load(PROBE, BEFORE), found.load(PROBE, AFTER)
    assert before is not None and after is not None
    change = after - before
    order = np.argsort(-np.abs(change), axis=None, kind="stable")[:MOST_CHANGED]
    rows: list[Sequence[Cell | str]] = []
    for layer, expert in (divmod(int(place), found.shape[1]) for place in order):
        numbers = [before[layer, expert], after[layer, expert]]
        rows.append(
            [
                f"layer {layer} expert {expert}",
                *(f"{number:.2f}" for number in numbers),
                f"{change[layer, expert]:+.2f}",
                *(favourites(found.probe, when, layer, expert, found.shape[1]) for when in (BEFORE, AFTER)),
                _serves_most(found, layer, expert),
            ]
        )
    columns = [Column("expert"), *(Column(name, number=True) for name in (BEFORE, AFTER, "change"))]
    columns += [Column(name) for name in ("tokens before", "tokens after", "serves most now")]
    return Table("The experts that changed most", columns, rows, note=f"In balanced loads, on the probe. {SPECIFIC}")


def favourites(probe: Probe, when: str, layer: int, expert: int, experts: int) -> str:
    """The tokens that choose an expert most clearly: by how much more often than an even router would choose it."""
    choices = probe.choices[when][layer]
    chose = Counter(probe.tokens[(choices == expert).any(axis=1)].tolist())
    there = Counter(probe.tokens.tolist())
    even = choices.shape[1] / experts
    excess = {token: count - even * there[token] for token, count in chose.items()}
    best = sorted((token for token in excess if excess[token] > 0), key=lambda token: (-excess[token], token))[:TOKENS]
    return " · ".join(f"{visible(probe, token)} ×{chose[token]}/{there[token]}" for token in best) or "none clearly"


def visible(probe: Probe, token: int) -> str:
    """The text of a token with its spaces; its number where it has no text of its own, as a part of a character."""
    text = probe.texts.get(token, "")
    if not text or "\ufffd" in text:
        return f"token {token}"
    return (text if len(text) <= LONGEST else f"{text[:LONGEST]}…").translate(VISIBLE)


def _serves_most(found: Atlas, layer: int, expert: int) -> Cell | str:
    """The data source or benchmark in which the expert now has its largest share."""
    loads = {name: found.load(name, AFTER) for name in found.loads if name not in (PROBE, TRAINED)}
    shares = {name: float(load[layer, expert]) for name, load in loads.items() if load is not None}
    if not shares:
        return "not known"
    name = max(shares, key=lambda one: shares[one])
    return Cell(name, note=f"{shares[name]:.2f} x")


def _drawn(load: np.ndarray | None) -> list[list[float]]:
    assert load is not None
    return load.round(3).tolist()
