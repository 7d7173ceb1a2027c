"""What was planned beside what was measured: steps, tokens, memory, speed, bytes on the disk."""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from olmoe_ft.checkpoints.run_checkpoints import RunCheckpoints
from olmoe_ft.constants import GIB
from olmoe_ft.report.amounts import finite, size
from olmoe_ft.report.files.run_files import RunFiles
from olmoe_ft.report.files.time_spent import first_step, tokens_trained, windows
from olmoe_ft.report.page.blocks import Cell, Column, Section, Table

FAR = 0.15  # memory and tokens are counted, not guessed: further off than this, the plan was of something else
COPIED = "metrics.jsonl"  # in a checkpoint; it grows with the run and is not planned


class Planned:
    """The figures of `plan.json`; None where it lacks one, as while a run trains."""

    def __init__(self, run: RunFiles) -> None:
        plan = run.plan or {}
        memory, batch = (found if isinstance(found := plan.get(key), dict) else {} for key in ("memory", "micro_batch"))
        self.gpu, self.packed = plan.get("gpu") is True, batch.get("packed") is True
        self.steps, self.tokens = finite(plan.get("steps")), finite(plan.get("tokens"))
        self.tokens_per_step, self.padding = finite(plan.get("tokens_per_step")), finite(plan.get("padding"))
        self.peak, self.checkpoint = finite(memory.get("peak")), finite(plan.get("checkpoint_bytes"))
        self.seconds_per_step = finite(plan.get("seconds_per_step")) if self.gpu else None

    @property
    def tokens_per_second(self) -> float | None:
        """Of the tokens that are in the records: those of the rows, without padding and with each shared prompt."""
        if not self.seconds_per_step or self.tokens_per_step is None:
            return None
        return self.tokens_per_step / self.seconds_per_step

    @property
    def lines(self) -> dict[str, float]:
        """What can be drawn beside a metric of the records, by its name."""
        peak = self.peak / GIB if self.peak is not None and self.gpu else None  # on CPUs something else is measured
        found = {
            "perf/tokens_per_second": self.tokens_per_second,
            "perf/padding": None if self.packed else self.padding,  # of packs the plan says what room is left in them
            "perf/peak_memory_gib": peak,
        }
        return {name: value for name, value in found.items() if value is not None}


class Measured:
    """The figures of a run so far. Speed and memory are those of the newest launch, if it has records."""

    def __init__(self, run: RunFiles) -> None:
        since = first_step(run.launch)
        self.since = since if run.metrics.last_step > since else 0
        found = windows(run)
        own = found.steps > self.since
        self.steps, self.tokens = run.metrics.last_step, tokens_trained(run)
        counted = run.metrics.of.get("num_tokens")
        self.tokens_per_step = self.tokens / counted.steps[-1] if self.tokens and counted is not None else None
        steps, tokens, seconds = (float(one[own].sum()) for one in (found.counts, found.tokens, found.seconds))
        self.seconds_per_step = seconds / steps if steps and seconds else None
        self.tokens_per_second = tokens / seconds if seconds else None
        self.padding, self.peak = self._padding(run), self._peak(run)
        self.checkpoint = checkpoint_bytes(run.path)

    def _padding(self, run: RunFiles) -> float | None:
        """The share of all places that held no token; records count as much as they have places."""
        found, shares = windows(run), run.metrics.of.get("perf/padding")
        if shares is None:
            return None
        _, here, there = np.intersect1d(found.steps, shares.steps, return_indices=True)
        tokens, share = found.tokens[here], shares.values[there]
        fine = (share >= 0) & (share < 1)  # False of NaN
        places = float((tokens[fine] / (1 - share[fine])).sum())
        return 1 - float(tokens[fine].sum()) / places if places else None

    def _peak(self, run: RunFiles) -> float | None:
        """In GiB."""
        if "perf/peak_memory_gib" not in run.metrics:
            return None
        found = run.metrics["perf/peak_memory_gib"]
        known = found.values[(found.steps > self.since) & np.isfinite(found.values)]
        return float(known.max()) if len(known) else None


def planned(run: RunFiles) -> Section | None:
    """The plan of the newest launch beside its figures; None of a run without a plan."""
    if run.plan is None:
        return None
    plan, found = Planned(run), Measured(run)
    rows = list(filter(None, _rows(plan, found)))
    if not rows:
        return None
    columns = [Column("")] + [Column(name, number=True) for name in ("planned", "measured", "deviation")]
    lead = "What olmoe_ft expected of the newest launch, and what came of it."
    if found.since:
        lead += f" Speed and memory are measured from step {found.since:,} on, where it began."
    return Section("planned", "Planned and measured", [Table("", columns, rows)], lead)


def checkpoint_bytes(run: Path) -> int | None:
    """Bytes of the newest checkpoint, without its copy of the records; None where there is none."""
    for folder in RunCheckpoints(run / "checkpoints").newest_first():
        files = [file for file in folder.rglob("*") if file.name != COPIED and file.is_file()]
        return sum(file.stat().st_size for file in files)
    return None


Row = list[Cell | str] | None


def _rows(plan: Planned, found: Measured) -> list[Row]:
    over = plan.steps is None or found.steps >= plan.steps
    so_far = "" if over else "so far"
    no_time = "" if plan.gpu else "no time is planned on CPUs"
    tokens = _row("tokens", plan.tokens, found.tokens, _count, far=FAR, of_measured=so_far, compared=over)
    return [
        _row("steps", plan.steps, found.steps, _count, of_measured=so_far, compared=over),
        tokens,
        _row("tokens a step", plan.tokens_per_step, found.tokens_per_step, _count, far=FAR),
        _padding(plan, found),
        _memory(plan, found),
        _row("seconds a step", plan.seconds_per_step, found.seconds_per_step, "{:.3g}".format, of_planned=no_time),
        _row("tokens a second", plan.tokens_per_second, found.tokens_per_second, _count, of_planned=no_time),
        _row("a checkpoint on the disk", plan.checkpoint, found.checkpoint, size),
    ]


def _padding(plan: Planned, found: Measured) -> Row:
    if not plan.packed:
        return _row("padding", plan.padding, found.padding, _share, compared=False)
    note = "packs are computed end to end, without it"
    return _row("room left in packs", plan.padding, None, _share, of_measured=note)


def _memory(plan: Planned, found: Measured) -> Row:
    peak = None if plan.peak is None else plan.peak / GIB
    if plan.gpu:
        return _row("peak memory of a device", peak, found.peak, _gib, far=FAR, of_measured="of the first process")
    note = "of the whole process with its libraries, so not comparable"
    return _row("peak memory", peak, found.peak, _gib, of_planned="tensors alone", of_measured=note, compared=False)


def _row(
    name: str,
    planned: float | None,
    measured: float | None,
    shown: Callable[[float], str],
    *,
    far: float | None = None,
    of_planned: str = "",
    of_measured: str = "",
    compared: bool = True,
) -> Row:
    """A line of the table; None where neither figure is known.

    Args:
        shown: a figure as text.
        far: how far off, as a share, is worth a warning.
        of_planned, of_measured: notes.
        compared: whether the deviation says something.
    """
    if planned is None and measured is None:
        return None
    cells: list[Cell | str] = [
        Cell("" if value is None else shown(value), note)
        for value, note in ((planned, of_planned), (measured, of_measured))
    ]
    return [name, *cells, _off(planned, measured, far) if compared else ""]


def _off(planned: float | None, measured: float | None, far: float | None) -> Cell | str:
    if not planned or measured is None:
        return ""
    share = measured / planned - 1
    return Cell(
        "0.0%" if abs(share) < 0.0005 else f"{share:+.1%}", tone="warn" if far is not None and abs(share) > far else ""
    )


def _count(value: float) -> str:
    return f"{value:,.0f}"


def _share(value: float) -> str:
    return f"{value:.1%}"


def _gib(value: float) -> str:
    return f"{value:,.2f} GiB"
