"""The points of a sweep as runs, one after the other. The same command goes on where it was stopped."""

import signal
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from olmoe_ft.data.terminal import say
from olmoe_ft.recipe import UserError
from olmoe_ft.stopping import REQUESTS, TRY_AGAIN, Stopped, asked, name_of
from olmoe_ft.sweep.child import Ended, Judge, MakeJudge, run_child, train_command
from olmoe_ft.sweep.plans import Planned, hours_of
from olmoe_ft.sweep.points import Point
from olmoe_ft.sweep.state import STOPPED, Entry, SweepState
from olmoe_ft.sweep.watch import Expected, Watch
from olmoe_ft.training.lock import refuse_second
from olmoe_ft.training.run_directory import RunDirectory

if TYPE_CHECKING:
    from olmoe_ft.planning.plan import Forecast

ASKED = {
    code for number in REQUESTS for code in (128 + number, -number)
}  # exit codes of a run stopped before its steps


@dataclass
class Runner:
    """Runs points and keeps account of them."""

    state: SweepState
    accelerate: str | None
    keep_diverged: bool
    """Whether a run that has diverged or collapsed is trained to its end all the same."""

    def entry(self, point: Point) -> Entry:
        return self.state.entry(point.name, point.overrides)

    def run_all(self, planned: Sequence[Planned]) -> None:
        """Every point that is left.

        Raises:
            Stopped: the sweep was asked to stop; the point that ran is saved.
        """
        for one in planned:
            entry = self.entry(one.point)
            entry.state, entry.reason = ("refused", one.refused) if one.refused else (entry.state, entry.reason)
            if entry.state == "refused" and not one.refused:  # on this machine it fits
                entry.state, entry.reason = "planned", None
        self.state.write()
        taken = [one for one in planned if not one.refused]
        for number, one in enumerate(taken, 1):
            self.run(one, f"point {number} of {len(taken)}")
            _say_left(taken[number:], pace(taken))

    def run(self, planned: Planned, which: str, more: Sequence[MakeJudge] = ()) -> Entry:
        """One point, unless it is done already.

        Args:
            which: how it is announced.
            more: what else judges the records of its last run.
        Raises:
            Stopped: the sweep was asked to stop.
        """
        point, entry = planned.point, self.entry(planned.point)
        if self._done(point, entry):
            say(f"{which}: {point.name} is {entry.state}" + (f" ({entry.reason})" if entry.reason else ""))
            return entry
        say(f"{which}: {point.name}")
        try:
            for stage in point.recipe.runs:
                refuse_second(stage.run_dir)
        except UserError as error:  # such as a job of SLURM
            return self._mark(entry, "running", str(error))
        self._mark(entry, "running", None)
        overrides = [*self.state.fixed, *point.overrides, f"name={point.recipe.name}"]
        command = train_command(self.state.recipe, overrides, self.accelerate)
        ended = run_child(command, point.recipe, self._judges(planned, more))
        self._conclude(point, entry, ended)
        if asked() or entry.state == "planned":
            what = f"by {name_of(asked())}" if asked() else f"with the run of {point.name}"
            raise Stopped(f"the sweep was stopped {what} at {point.name}; the same command goes on there")
        say(f"{which}: {point.name} is {entry.state}" + (f": {entry.reason}" if entry.reason else ""))
        return entry

    def _done(self, point: Point, entry: Entry) -> bool:
        if entry.state in STOPPED and not (self.keep_diverged and entry.state != "pruned"):
            return True
        if summaries(point) is None:
            return False
        self._mark(entry, "finished", None)
        return True

    def _judges(self, planned: Planned, more: Sequence[MakeJudge]) -> list[MakeJudge]:
        *before, last = planned.stages
        return [*(self._judge_of(stage, ()) for stage in before), self._judge_of(last, more)]

    def _judge_of(self, stage: "Forecast", more: Sequence[MakeJudge]) -> MakeJudge:
        expected = Expected.of(stage.plan.recipe, stage.plan.config)

        def make() -> Judge:
            own = [] if self.keep_diverged else [Watch(expected).see]
            judges = [*own, *(make() for make in more)]
            return lambda record: next((verdict for one in judges if (verdict := one(record)) is not None), None)

        return make

    def _conclude(self, point: Point, entry: Entry, ended: Ended) -> None:
        if ended.verdict is not None:
            self._mark(entry, ended.verdict.state, ended.verdict.reason, ended.verdict.step)
        elif ended.code == 0 and summaries(point) is not None:
            self._mark(entry, "finished", None)
        elif asked() or ended.code in (TRY_AGAIN, *ASKED):
            self._mark(entry, "planned", "stopped, to be continued", ended.step)
        else:
            how = f"exit code {ended.code}" if ended.code >= 0 else f"ended by {signal.Signals(-ended.code).name}"
            self._mark(entry, "failed", ended.said or how, ended.step)

    def _mark(self, entry: Entry, state: Any, reason: str | None, step: int | None = None) -> Entry:
        entry.state, entry.reason, entry.step = state, reason, step
        self.state.write()
        return entry


def summaries(point: Point) -> list[dict[str, Any]] | None:
    """Of the runs of a point, in order; None where one has not finished."""
    found = [RunDirectory(stage).finished() for stage in point.recipe.runs]
    return None if None in found else [one for one in found if one is not None]


def pace(planned: Sequence[Planned]) -> float | None:
    """Seconds a token of the points that have finished; None where none has, or their tokens are not known."""
    seconds = tokens = 0.0
    for one in planned:
        if one.tokens is not None and (found := summaries(one.point)) is not None:
            seconds += sum(float(summary["train_seconds"]) for summary in found)
            tokens += one.tokens
    return seconds / tokens if tokens else None


def _say_left(left: Sequence[Planned], measured: float | None) -> None:
    hours = [hours_of(one, measured) for one in left]
    known = sum(one for one in hours if one is not None)
    if left and None not in hours:
        say(f"{len(left)} point(s) left, about {known:.3g} h without evaluation")
