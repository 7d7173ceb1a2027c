"""The points of a sweep as runs, one after the other. The same command goes on where it was stopped."""

import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from olmoe_ft.data.terminal import say
from olmoe_ft.recipe import UserError
from olmoe_ft.report.amounts import duration
from olmoe_ft.report.files.run_files import read_run
from olmoe_ft.stopping import REQUESTS, TRY_AGAIN, Stopped, asked, name_of
from olmoe_ft.sweep.child import LOOK, Ended, Judge, MakeJudge, run_child, train_command
from olmoe_ft.sweep.plans import Planned, hours_of
from olmoe_ft.sweep.points import Point
from olmoe_ft.sweep.result import check_metric
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
    by: str | None
    """The metric that the points are compared by, if it is known before they are."""
    keep_diverged: bool
    """Whether a run that has diverged or collapsed is trained to its end all the same."""

    def entry(self, point: Point) -> Entry:
        return self.state.entry(point.name, point.overrides)

    def run_all(self, planned: Sequence[Planned]) -> list[Entry]:
        """Every point that is left; all of them as they are then.

        Raises:
            Stopped: the sweep was asked to stop; the point that ran is saved.
        """
        for one in planned:
            entry = self.entry(one.point)
            if one.refused and entry.state != "finished":
                entry.state, entry.reason = "refused", one.refused
            elif entry.state == "refused":  # on this machine it fits
                entry.state, entry.reason = "planned", None
        self.state.write()
        taken = [one for one in planned if not one.refused]
        for number, one in enumerate(taken, 1):
            if not self._done(one.point):
                self.run(one, f"point {number} of {len(taken)}")
                _say_left([other for other in taken[number:] if not self._done(other.point)], pace(taken))
        return [self.entry(one.point) for one in planned]

    def run(self, planned: Planned, which: str, more: Sequence[MakeJudge] = ()) -> Entry:
        """One point, unless it has been done.

        Args:
            which: how it is announced.
            more: what else judges the records of its last run.
        Raises:
            Stopped: the sweep was asked to stop.
            UserError: the run does not have the metric.
        """
        point, entry = planned.point, self.entry(planned.point)
        self._wait_for_another(point)
        if self._done(point):
            return entry
        say(f"{which}: {point.name}")
        self._mark(entry, "running", None)
        overrides = [*self.state.fixed, *point.overrides, f"name={point.recipe.name}"]
        command = train_command(self.state.recipe, overrides, self.accelerate)
        ended = run_child(command, point.recipe, self._judges(planned, more))
        self._conclude(point, entry, ended)
        if asked() or entry.state == "planned":
            what = f"by {name_of(asked())}" if asked() else f"with the run of {point.name}"
            raise Stopped(f"the sweep was stopped {what} at {point.name}; the same command goes on there")
        say(f"{which}: {point.name} is {entry.state}" + (f": {entry.reason}" if entry.reason else ""))
        if self.by is not None and entry.state == "finished":
            check_metric(self.by, read_run(point.last_run))
        return entry

    def _wait_for_another(self, point: Point) -> None:
        """A process that trains this point: of a sweep that was killed, which is saving, or a job of SLURM."""
        said = False
        while True:
            try:
                for stage in point.recipe.runs:
                    refuse_second(stage.run_dir)
            except UserError as error:
                if not said:
                    say(f"{error}; the sweep waits")
                    said = True
                if asked():
                    raise Stopped(f"the sweep was stopped by {name_of(asked())} before {point.name}") from None
                time.sleep(LOOK)
            else:
                return

    def _done(self, point: Point) -> bool:
        entry = self.entry(point)
        if entry.state in STOPPED and not (self.keep_diverged and entry.state != "pruned"):
            return True
        if summaries(point) is None:
            return False
        if entry.state != "finished":
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
    if left and None not in hours:
        time = duration(3600 * sum(one for one in hours if one is not None))
        say(f"{len(left)} point(s) left, about {time} of training")
