"""One point as a process of its own: started, watched, stopped by a signal so that it saves, waited for."""

import json
import os
import shlex
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from olmoe_ft.data.terminal import say
from olmoe_ft.recipe import Recipe, UserError
from olmoe_ft.stopping import LAUNCHER_ENDED, OF_SWEEP, asked, done_at_a_stop
from olmoe_ft.sweep.records import Record, Records
from olmoe_ft.sweep.watch import Verdict

LOOK = 0.5  # seconds between two looks at the records
SIGNALS = "SIGTERM,SIGINT,SIGHUP,SIGQUIT,SIGUSR1"  # that torchrun passes on
WAIT = "600"  # seconds in which a run of several processes ends its step and saves

Judge = Callable[[Record], Verdict | None]
MakeJudge = Callable[[], Judge]


@dataclass(frozen=True)
class Ended:
    """How a process has ended."""

    code: int
    verdict: Verdict | None
    """Why it was stopped, or should have been if it had not ended first; None where nothing was wrong."""
    said: str | None
    """The sentence that it gave as the reason of a failure."""
    step: int | None
    """The step of its last record."""


def train_command(recipe: str, overrides: Sequence[str], accelerate: str | None) -> list[str]:
    """What trains a point: one process, or accelerate's launcher with the machine's file.

    Raises:
        UserError: the file is missing or wrong.
    """
    program = ["-m", "olmoe_ft", "train", recipe, *overrides]
    if accelerate is None:
        return [sys.executable, *program]
    from olmoe_ft.planning.machine import read_machine

    machine = read_machine(accelerate)
    if machine.processes == 1 and not machine.deepspeed:
        return [sys.executable, *program]  # accelerate's launcher of one process passes no signal on
    if not Path(accelerate).exists():
        raise UserError(
            f"--accelerate: {accelerate} is not in this folder, where accelerate looks for it; `olmoe-ft recipes copy "
            f"{accelerate.removesuffix('.yaml')}` writes it"
        )
    launcher = "accelerate.commands.accelerate_cli"
    return [sys.executable, "-m", launcher, "launch", "--quiet", "--config_file", accelerate, *program]


def run_child(command: Sequence[str], recipe: Recipe, judges: Sequence[MakeJudge]) -> Ended:
    """Train a point to its end, or until it is to be stopped: by a judge of its records, or by a request to the sweep.

    Args:
        recipe: whose runs are looked at.
        judges: for each run of the recipe, what makes a judge, which gets the records of that run in order.
    """
    with tempfile.TemporaryDirectory(prefix="olmoe_ft-sweep-") as folder:
        why = Path(folder) / "error.json"
        child = _start(command, why)
        with done_at_a_stop(lambda: _signal(child, signal.SIGTERM)):  # of the second request, which ends it at once
            verdict, step = _watch(child, recipe, judges)
        return Ended(child.returncode, verdict, _sentence(why), step)


def _start(command: Sequence[str], why: Path) -> "subprocess.Popen[bytes]":
    """A process in a group of its own: Ctrl-C in a terminal reaches the sweep alone, which passes it on once."""
    environment = {
        "PET_SIGNALS_TO_HANDLE": SIGNALS,
        "TORCH_ELASTIC_SHUTDOWN_TIMEOUT": WAIT,
        **os.environ,
        "TORCHELASTIC_ERROR_FILE": str(why),  # olmoe_ft.ending writes its sentence there
        OF_SWEEP: "1",  # when the sweep is killed, the run saves and stops
    }
    say(f"$ {shlex.join(['olmoe-ft', *command[3:]] if command[2] == 'olmoe_ft' else command)}")
    return subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, process_group=0)


class _Watched:
    """A run's records and their judge."""

    def __init__(self, file: Path, make_judge: MakeJudge) -> None:
        self.records, self.make_judge = Records(file), make_judge
        self.judge, self.begins = make_judge(), 0
        self.step: int | None = None

    def look(self) -> Verdict | None:
        """The first verdict on the records since the last look."""
        new = self.records.new()
        if self.records.begins != self.begins:  # the run continues from a checkpoint, with its records alone
            self.judge, self.begins = self.make_judge(), self.records.begins
        self.step = new[-1]["step"] if new else self.step
        return next((verdict for record in new if (verdict := self.judge(record)) is not None), None)


def _watch(
    child: "subprocess.Popen[bytes]", recipe: Recipe, judges: Sequence[MakeJudge]
) -> tuple[Verdict | None, int | None]:
    watched = [_Watched(one.run_dir / "metrics.jsonl", judge) for one, judge in zip(recipe.runs, judges, strict=True)]
    verdict: Verdict | None = None
    passed_on = ended = False
    while not ended:
        ended = _wait(child)  # then the records are read once more
        for run in watched:
            verdict = run.look() or verdict
        if not ended and not passed_on and (asked() or verdict):
            passed_on = True
            if verdict:
                say(f"{verdict.state}: {verdict.reason}; the run is saved and stopped")
            _signal(child, asked() if asked() not in (0, LAUNCHER_ENDED) else signal.SIGTERM)
    return verdict, next((run.step for run in reversed(watched) if run.step is not None), None)


def _wait(child: "subprocess.Popen[bytes]") -> bool:
    """Whether it has ended by the next look."""
    with suppress(subprocess.TimeoutExpired):
        child.wait(LOOK)
    return child.returncode is not None


def _signal(child: "subprocess.Popen[bytes]", number: int) -> None:
    with suppress(ProcessLookupError):
        child.send_signal(number)


def _sentence(file: Path) -> str | None:
    """What a process gave as its reason (`olmoe_ft.ending.tell_launcher`)."""
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    message = found.get("message") if isinstance(found, dict) else None
    return message if isinstance(message, str) else None
