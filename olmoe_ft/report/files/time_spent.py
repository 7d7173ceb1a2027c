"""How long a run took, and on how many devices: as `run.json` has it, and of a killed launch as its records show."""

import re
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np

from olmoe_ft.report.amounts import finite
from olmoe_ft.report.files.run_files import RunFiles

Known = Literal["end", "summary", "records"]
STEP = re.compile(r"checkpoint-(\d{1,15})")


class Windows(NamedTuple):
    """What lies between two records of training steps, in the order of steps. All of them are (N,)."""

    steps: np.ndarray
    """The step of the record at the end."""
    counts: np.ndarray
    """How many steps."""
    tokens: np.ndarray
    """That all processes trained on, as TRL counts them: with prompts, and of a pair both sides."""
    seconds: np.ndarray
    """Without evaluation and saving (`olmoe_ft.training.performance`)."""


@dataclass(frozen=True)
class LaunchTime:
    """The time of one launch."""

    seconds: float
    known: Known
    """From where: its end in `run.json`; `train_seconds` of summary.json, of the only launch; or its records, which
    have the steps alone, and of those only what no later launch trained again."""
    processes: int | None
    first_step: int
    """The step that it continued from."""


def windows(run: RunFiles) -> Windows:
    """The tokens and seconds between records; none where a run has no speed in its records."""
    speed, counted = (run.metrics.of.get(name) for name in ("perf/tokens_per_second", "num_tokens"))
    if speed is None or counted is None:
        return Windows(*(np.zeros(0) for _ in range(4)))
    steps, at_speed, at_count = np.intersect1d(speed.steps, counted.steps, return_indices=True)
    rate, tokens = speed.values[at_speed], np.diff(counted.values[at_count], prepend=0.0)
    with np.errstate(invalid="ignore"):
        fine = np.isfinite(rate) & np.isfinite(tokens) & (rate > 0) & (tokens >= 0)
    return Windows(steps[fine], np.diff(steps, prepend=0)[fine], tokens[fine], tokens[fine] / rate[fine])


def tokens_trained(run: RunFiles) -> float | None:
    """All tokens so far, the newest count that is a number; None where a run does not record them."""
    if "num_tokens" not in run.metrics:
        return None
    counts = run.metrics["num_tokens"].values
    known = counts[np.isfinite(counts)]
    return float(known[-1]) if len(known) else None


def seconds_in_steps(run: RunFiles) -> float | None:
    """Seconds of all training steps in the records; None where a run does not record its speed."""
    found = windows(run).seconds
    return float(found.sum()) if len(found) else None


def speed(run: RunFiles) -> float | None:
    """Tokens a second in the steps whose time is known; None where it is of none."""
    found = windows(run)
    return float(found.tokens.sum() / found.seconds.sum()) if found.seconds.sum() else None


def steps_known(run: RunFiles) -> str:
    """`of 50 of 90 steps`, where the time of some is in no record; empty where it is known of all."""
    known, step = int(windows(run).counts.sum()), ended(run.launch).get("step")
    steps = step if isinstance(step, int) else run.metrics.last_step  # the record of a failure is of a step not taken
    return f"of {known:,} of {steps:,} steps" if known < steps else ""


def device_hours(run: RunFiles) -> float | None:
    """Hours of all launches, each times its processes; None where `run.json` does not say how many there were."""
    times = launch_times(run)
    counts = [time.processes for time in times]
    if not times or None in counts:
        return None
    return sum(time.seconds * (time.processes or 0) for time in times) / 3600


def device_word(run: RunFiles) -> str:
    """What an hour is of: "GPU" or "process" (on CPUs); "device" where launches ran on both, or none is known."""
    kinds = {str(launch["device"]).startswith("cpu") for launch in run.launches if launch.get("device")}
    return "device" if len(kinds) != 1 else "process" if kinds == {True} else "GPU"


def launch_times(run: RunFiles) -> list[LaunchTime]:
    """Of every launch, in their order."""
    starts = [first_step(launch) for launch in run.launches]
    between = windows(run)
    total = finite((run.summary or {}).get("train_seconds"))
    found = []
    for index, launch in enumerate(run.launches):
        known: Known = "end"
        seconds = finite(ended(launch).get("seconds"))
        if seconds is None and total is not None and len(run.launches) == 1:
            known, seconds = "summary", total
        if seconds is None:
            until = min(starts[index + 1 :], default=np.inf)  # what came after was trained again, and recorded anew
            own = (between.steps > starts[index]) & (between.steps <= until)
            known, seconds = "records", float(between.seconds[own].sum())
        found.append(LaunchTime(seconds, known, processes_of(launch), starts[index]))
    return found


def ended(launch: dict[str, Any]) -> dict[str, Any]:
    """How a launch ended; empty of one that was killed, is training, or is of a version that did not record it."""
    found = launch.get("ended")
    return found if isinstance(found, dict) else {}


def first_step(launch: dict[str, Any]) -> int:
    """The step that a launch continued from; 0 where the run began with it."""
    match = STEP.fullmatch(str(launch.get("resumed_from")))
    return int(match[1]) if match else 0


def processes_of(launch: dict[str, Any]) -> int | None:
    """How many processes a launch had; None where it does not say."""
    found = launch.get("processes")
    return found if isinstance(found, int) and not isinstance(found, bool) and found > 0 else None
