"""The page of a run while it trains and when its launch ends; and how it ended, in `run.json`."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from accelerate import PartialState
from transformers import TrainerCallback

from olmoe_ft.checkpoints.manifest import CARD
from olmoe_ft.data.terminal import say
from olmoe_ft.ending import lost_another
from olmoe_ft.planning.of_launch import LaunchPlan
from olmoe_ft.ranks import is_first
from olmoe_ft.reasons import one_line
from olmoe_ft.recipe import Recipe, RunError, UserError
from olmoe_ft.report.files.run_files import stages_of
from olmoe_ft.report.written import write_all, write_report
from olmoe_ft.stopping import Stopped, asked, name_of, undisturbed
from olmoe_ft.training.hardware import Energy
from olmoe_ft.training.launch_record import Ended
from olmoe_ft.training.run_directory import RunDirectory
from olmoe_ft.training.watch import lost_rank

FIRST = 300.0  # seconds of training before the first page, which takes one, and between two
TURN = 15.0  # seconds for the first process to write its page; of a run of 100,000 records it takes 5
SHARE = 400  # a page may take one of so many seconds: 0.25% of the time


class LaunchReport:
    """Of one launch of a stage; every process has one, the first one writes."""

    def __init__(self, run: RunDirectory) -> None:
        self.run, self.state = run, PartialState()
        self.since = time.perf_counter()
        self.energy = Energy(self.state.device)
        self.step: Callable[[], int] = int  # of the trainer, once there is one
        self.plan: LaunchPlan | None = None  # of the first process, once its launch is in run.json

    def begin(self, plan: LaunchPlan) -> None:
        """The launch is in `run.json`. For the first process."""
        self.plan = plan
        self.run.write_plan(plan.at_once())

    @contextmanager
    def to_the_end(self) -> Iterator[None]:
        """Around a launch: what ends it is recorded and shown, once a step was trained."""
        try:
            yield
        except BaseException as error:
            # where all stop together all count; where one fails it cannot wait for the others
            together = isinstance(error, Stopped) or self.state.num_processes == 1
            with undisturbed():
                self._end(_ended_by(error), self.energy.of_all() if together else None)
            self._let_first_report(error)
            raise
        # a request to stop is heard here: what is then missing is written by the next launch, or by `report`
        self._end(("finished", None), self.energy.of_all())

    def _end(self, how: tuple[Any, str | None], joules: float | None) -> None:
        if self.plan is None or not self.run.begun():
            return
        seconds = time.perf_counter() - self.since
        attempt("run.json", lambda: self.run.record_end(Ended(*how, self.step(), seconds, joules)))
        if attempt("its page", lambda: write_all(self.run.path)):
            say(f"the run to look at: {self.run.report}")
        # of a stop there may be seconds left; where several fail, the others wait for this process
        if how[0] == "finished" or (how[0] == "failed" and self.state.num_processes == 1):
            attempt("plan.json", self._complete_plan)

    def _let_first_report(self, error: BaseException) -> None:
        """Of several processes that fail alike the first says why. It has a page to write before that, and the launcher
        ends the others when it has ended."""
        alike = isinstance(error, Exception) and not isinstance(error, Stopped) and not lost_another(error)
        if alike and not self.state.is_main_process and self.run.begun():
            time.sleep(TURN)

    def _complete_plan(self) -> None:
        """Seconds of work, in which the launcher may end this process: the page is there by then."""
        assert self.plan is not None
        self.run.write_plan(self.plan.whole())
        write_report(self.run.path)


def page_of_finished(run: RunDirectory) -> None:
    """Of a run that had finished before this launch: its page and card, if one is not there.

    The page is there from the start. One that was killed when it had just finished has no card, and an earlier page.
    """
    if not (run.report.exists() and (run.final / CARD).exists()):
        attempt("its page", lambda: write_all(run.path))


@contextmanager
def page_of_pipeline(recipe: Recipe) -> Iterator[None]:
    """Around the stages of a pipeline: their page, however they end; of a single stage nothing."""
    try:
        yield
    finally:
        if recipe.stages and is_first() and stages_of(recipe.run_dir):
            with undisturbed():
                attempt("the pipeline's page", lambda: write_report(recipe.run_dir))


def attempt(what: str, write: Callable[[], Any]) -> bool:
    """A run is worth more than what is written about it: where that fails, it is said, and the run continues."""
    try:
        write()
    except Exception as error:
        say(f"check: {what} could not be written: {one_line(error)}")
        return False
    return True


def _ended_by(error: BaseException) -> tuple[Any, str]:
    if isinstance(error, Stopped):
        return "stopped", str(error)
    if isinstance(error, SystemExit | KeyboardInterrupt):
        return "stopped", f"stopped by {name_of(asked())}" if asked() else one_line(error)
    if isinstance(error, UserError | RunError):
        return "failed", str(error)
    if lost_another(error):
        rank = "another process" if (lost := lost_rank()) is None else f"rank {lost}"
        return "failed", f"{rank} of this launch has ended, or has not moved any more; its own output says why"
    return "failed", one_line(error)


class PageCallback(TrainerCallback):
    """Writes the page now and then, so that a run that is killed has one. For the first process."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.due = time.perf_counter() + FIRST

    def on_log(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        start = time.perf_counter()
        if start < self.due:
            return
        attempt("its page", lambda: write_report(self.folder))
        done = time.perf_counter()
        self.due = done + max(FIRST, SHARE * (done - start))
