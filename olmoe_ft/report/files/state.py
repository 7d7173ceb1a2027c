"""How a run has ended, or that it has not."""

from typing import Literal, NamedTuple

from olmoe_ft.checkpoints.run_checkpoints import RunCheckpoints, step_of
from olmoe_ft.report.files.data_report import mapping
from olmoe_ft.report.files.run_files import RunFiles
from olmoe_ft.training.lock import held

How = Literal["finished", "stopped", "failed", "training", "killed", "not known"]
ENDS: tuple[How, ...] = ("finished", "stopped", "failed")


class State(NamedTuple):
    """The state of the newest launch."""

    how: How
    reason: str
    """Why it stopped or failed, as it was recorded; empty where nothing is."""
    step: int
    """The optimizer steps that it has taken, as far as its files say: at least, of one without an end."""
    seen: str = ""
    """What shows the step of one that neither ended nor trains: "last record" or "newest checkpoint"."""


def state_of(run: RunFiles) -> State:
    """What the files of a run say of its newest launch.

    A launch that has ended has recorded how. One that has not still trains if it holds the run's lock, and was killed
    if nobody does; launches of older versions recorded no end, but a summary.
    """
    ended = mapping(run.launch.get("ended"))
    step = ended.get("step")
    steps = step if isinstance(step, int) else run.metrics.last_step
    for how in ENDS:
        if ended.get("how") == how:
            return State(how, str(ended.get("reason") or ""), steps)
    trains = held(run.path)
    if trains:
        return State("training", "", steps)
    if run.summary is not None:
        return State("finished", "", steps)
    saved = max(map(step_of, RunCheckpoints(run.path / "checkpoints").newest_first()), default=0)
    seen = "newest checkpoint" if saved > steps else "last record"
    return State("not known" if trains is None else "killed", "", max(steps, saved), seen)
