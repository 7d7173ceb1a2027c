"""Where a run's records go: `metrics.jsonl` always, Weights & Biases by recipe. Rank 0 alone writes."""

import logging
import os
import re
import sys
import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import psutil
import wandb
from transformers import TrainerCallback
from wandb.sdk.lib import console_capture

from olmoe_ft.data.terminal import say
from olmoe_ft.reasons import one_line
from olmoe_ft.recipe import Recipe, UserError
from olmoe_ft.servers import why_no_answer
from olmoe_ft.training.files import to_json, write_text
from olmoe_ft.training.router.pictures import LoadMap
from olmoe_ft.training.run_directory import RunDirectory
from olmoe_ft.training.sample_table import SampleTable
from olmoe_ft.training.wandb_mode import ORDER, REACH, Choice, Mode, choose, server, wandb_settings, why_unreachable

if TYPE_CHECKING:  # evaluation is above training
    from olmoe_ft.evaluation.score import Evaluation

FINISH = 30.0  # seconds to send what is left at the end; the rest stays on disk for `wandb sync`
PATIENCE = FINISH + 10.0  # seconds for wandb's own process to do what it is asked
TEAR_DOWN = 5.0
ID = re.compile("[a-z0-9]{8}")
START = 10.0  # seconds in which `auto` is online or goes offline


class Tracking:
    """One record at a time, under the same names in both places."""

    def __init__(self, recipe: Recipe, run: RunDirectory) -> None:
        self.metrics_file = run.metrics
        self.wandb_run: Any = None
        self.samples = SampleTable(run.path / "wandb")
        self.load_map: LoadMap | None = None
        self.next_picture = 0.0  # time.perf_counter() before which none is drawn
        self.must_be_online = recipe.tracking.wandb == "online" and not run.begun()
        try:
            choice = choose(recipe.tracking.wandb)
        except UserError as error:
            if not run.begun():
                raise
            choice = Choice("offline", one_line(error))
        if choice.mode == "online" and not self.must_be_online and (reason := why_unreachable()):
            choice = Choice("offline", f"{server()} cannot be reached: {reason}")
        if choice.why is not None:
            _say(f"{choice.mode} for this run, as {choice.why}")
        self._start(choice.mode, recipe, run)

    def _start(self, mode: Mode, recipe: Recipe, run: RunDirectory) -> None:
        """Start the W&B run; where that fails, take the mode below.

        Raises:
            UserError: `online` cannot be had, and the recipe asks for it. Not once a step was trained.
        """
        while mode != "off":
            try:
                self.wandb_run = _wandb_run(mode, recipe, run)
                return
            except Exception as error:  # of a server, a key, a disk, wandb's own process
                reason = one_line(error)
            if self.must_be_online and mode == "online":
                raise UserError(
                    f"tracking.wandb: found online, and the W&B run cannot be started: {reason}; set tracking.wandb to "
                    "auto or offline, and send the run later with `wandb sync`"
                )
            tear_down()  # what is left of it would hold the run's id
            failed, mode = mode, ORDER[ORDER.index(mode) - 1]
            _say(f"{mode} for this run, as it cannot be started {failed}: {reason}")

    def record(self, step: int, values: dict[str, Any]) -> None:
        values = self._write(step, values)
        if self.wandb_run is not None:
            # what is sent is made where it may fail: W&B's pictures are files in TMPDIR
            self._send(lambda wandb_run: wandb_run.log(_for_wandb(values) | self._load_map(step, values)))

    def record_evaluation(self, evaluation: "Evaluation") -> None:
        """The scores of an evaluation with their standard errors as one record, and its first samples as a table."""
        assert evaluation.step is not None  # it is this run's
        values = {score.name: score.value for score in evaluation.headline}
        errors = {f"{score.name}_stderr": score.stderr for score in evaluation.headline if score.stderr is not None}
        record = self._write(evaluation.step, values | errors)
        self._send(lambda wandb_run: self.samples.log(wandb_run, record, evaluation))

    def _write(self, step: int, values: dict[str, Any]) -> dict[str, Any]:
        record = {"step": step, **values}
        with self.metrics_file.open("a", encoding="utf-8") as stream:
            stream.write(to_json(record) + "\n")
        return record

    def _load_map(self, step: int, values: dict[str, Any]) -> dict[str, wandb.Image]:
        """The load of all layers as one picture, unless drawing would take more than 0.5% of the run's time."""
        loads = [values[name] for name in sorted(values) if name.startswith("router/load/")]
        start = time.perf_counter()
        if not loads or start < self.next_picture:
            return {}
        self.load_map = self.load_map or LoadMap(len(loads), len(loads[0]))
        picture = wandb.Image(self.load_map.pixels(np.array(loads), step))
        done = time.perf_counter()
        self.next_picture = done + 200 * (done - start)
        return {"router/load_map": picture}

    def stop(self, step: int, values: dict[str, Any]) -> None:
        """The last record of a run that cannot go on."""
        self.record(step, values)
        self._send(lambda wandb_run: wandb_run.finish(exit_code=1))

    def finish(self, summary: dict[str, Any]) -> None:
        def close(wandb_run: Any) -> None:
            wandb_run.summary.update(summary)
            wandb_run.finish()

        self._send(close)

    def _send(self, send: Callable[[Any], None]) -> None:
        """Training is worth more than its record elsewhere: where W&B fails, the run goes on without it."""
        if self.wandb_run is None:
            return
        wandb_run = self.wandb_run
        if (reason := why_no_answer(lambda: send(wandb_run), PATIENCE)) is not None:
            self.wandb_run = None
            tear_down()
            _say(f"off from here on, as it failed: {reason}; every record is in {self.metrics_file}")


def _wandb_run(mode: Any, recipe: Recipe, run: RunDirectory) -> Any:
    """A new run of W&B, or the one that an earlier launch of this run directory began."""
    wandb_settings()
    # what wandb says of its own use to a server that is away
    logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)
    settings: dict[str, Any] = {"silent": True} if mode == "offline" else {}
    if recipe.tracking.wandb == "auto" and "WANDB_INIT_TIMEOUT" not in os.environ:
        settings["init_timeout"] = START - REACH
    if "WANDB_FINISH_TIMEOUT" not in os.environ:
        settings["finish_timeout"] = FINISH
    wandb_run = wandb.init(
        project=recipe.tracking.project,
        name=recipe.name,
        id=_wandb_id(run.path / "wandb_id"),
        resume="allow",
        mode=mode,
        settings=wandb.Settings(**settings),
        dir=str(run.path),
        config=recipe.model_dump(mode="json"),
    )
    # records are drawn over the optimizer step; W&B's own counter would refuse the steps a resume repeats
    wandb_run.define_metric("*", step_metric="step")
    return wandb_run


def tear_down() -> None:
    """Let go of wandb's own process, which is another program: it may be gone, or hang and never answer.

    A run that was not finished stays in the path of every write to stdout and stderr, and fails or waits in each: what
    wandb has put there is taken out, as wandb does itself when a write fails.
    """
    if why_no_answer(wandb.teardown, TEAR_DOWN) is not None:
        for process in psutil.Process().children():
            with suppress(psutil.Error):
                if process.name() == "wandb-core":
                    process.kill()
                    process.wait(TEAR_DOWN)
    console_capture._stdout_callbacks.clear()
    console_capture._stderr_callbacks.clear()


def _say(what: str) -> None:
    say(f"W&B: {what}", file=sys.stderr)


def abandon_tracking() -> None:
    """End a W&B run that fails, before its run directory may be removed."""
    # the mistake that ends the run is what is to be said
    if wandb.run is not None and why_no_answer(lambda: wandb.finish(exit_code=1), PATIENCE) is not None:
        tear_down()


class TrackingCallback(TrainerCallback):
    """Passes every record of the trainer on."""

    def __init__(self, tracking: Tracking) -> None:
        self.tracking = tracking

    def on_log(self, args, state, control, logs=None, **kwargs):
        if state.is_world_process_zero:
            self.tracking.record(state.global_step, logs)


def _for_wandb(values: dict[str, Any]) -> dict[str, Any]:
    """A layer's load is one bar an expert."""
    return {
        name: wandb.Histogram(np_histogram=(np.array(value), np.arange(len(value) + 1)))
        if isinstance(value, list)
        else value
        for name, value in values.items()
    }


def _wandb_id(file: Path) -> str:
    """The id of this run in W&B, made once: a resumed run goes on in the same one, unless its file is damaged."""
    with suppress(OSError, UnicodeDecodeError):
        if ID.fullmatch(found := file.read_text(encoding="ascii")):
            return found
    if file.exists():
        _say(f"{file} is damaged; from here on this is a new run there")
    write_text(file, new := uuid.uuid4().hex[:8])
    return new
