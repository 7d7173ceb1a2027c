"""How far a run has come, as its run directory shows it from outside."""

import json
import time
from dataclasses import dataclass, field
from pathlib import Path

from torture.configurations import SAVED, STEPS, Configuration
from torture.launcher import Launch

LOOK_EVERY = 0.004  # seconds
EVALUATED = 4  # the first step after which a run with that trait evaluates


@dataclass(frozen=True)
class Moment:
    """A part of a run, between two marks that it passes."""

    name: str
    begins: str
    ends: str

    def is_of(self, configuration: Configuration) -> bool:
        """Whether such a run has this part."""
        return {self.begins, self.ends} <= set(marks_of(configuration))


AT_ANY_TIME = Moment("at any time", "launched", "ended")
MOMENTS = (
    Moment("before the first step", "launched", "step 1"),
    *(Moment("while a checkpoint is written", f"step {step}", f"checkpoint {step}") for step in SAVED),
    Moment("in an evaluation", f"step {EVALUATED}", "evaluated"),
    Moment("after the last step", f"step {STEPS}", "ended"),
    Moment("while final/ is written", "final", "summary"),
    Moment("between two stages", "first stage", "step 1"),
)


def marks_of(configuration: Configuration) -> list[str]:
    """What such a run passes, in no order."""
    marks = ["launched", "step 1", "final", "summary", "ended"]
    marks += [f"{what} {step}" for step in SAVED for what in ("step", "checkpoint")]
    if configuration.trait == "evaluation":
        marks += [f"step {EVALUATED}", "evaluated"]
    if configuration.stage == "pipeline":
        marks += ["first stage"]
    return marks


@dataclass
class Watch:
    """Looks at the last run directory of a configuration; of a pipeline the earlier stages have only their summary."""

    workspace: Path
    configuration: Configuration
    _size: int = 0
    _records: list[dict[str, object]] = field(default_factory=list)

    def has_passed(self, mark: str) -> bool:
        """Whether a run that is under way has. "ended" is not seen here: its process ends."""
        run = self.workspace / self.configuration.runs[-1]
        what, _, step = mark.partition(" ")
        match what:
            case "launched":
                return True
            case "first":
                return (self.workspace / self.configuration.runs[0] / "summary.json").exists()
            case "step":
                return any("loss" in record and record["step"] == int(step) for record in self._all(run))
            case "checkpoint":
                return (run / f"checkpoints/checkpoint-{step}/trainer_state.json").exists()
            case "evaluated":
                return any("eval_loss" in record for record in self._all(run))
            case "final":
                return any("final" in file.name for file in run.glob("*"))
            case "summary":
                return (run / "summary.json").exists()
        return False

    def wait_for(self, mark: str, launch: Launch) -> bool:
        """Whether the launch has come there, rather than ended before."""
        while not self.has_passed(mark):
            if launch.code() is not None:
                return False
            time.sleep(LOOK_EVERY)
        return True

    def timeline(self, launch: Launch, limit: float) -> dict[str, float]:
        """The seconds after which a launch passes its marks, all of them if it ends well."""
        missing, passed = set(marks_of(self.configuration)), dict[str, float]()
        while missing and (now := time.monotonic() - launch.began) < limit:
            over = launch.code() is not None
            for mark in [mark for mark in missing if self.has_passed(mark) or (over and mark == "ended")]:
                passed[mark] = now
                missing.remove(mark)
            if over:
                break
            time.sleep(LOOK_EVERY)
        return passed

    def _all(self, run: Path) -> list[dict[str, object]]:
        """The whole lines of metrics.jsonl."""
        file = run / "metrics.jsonl"
        if file.exists() and (size := file.stat().st_size) != self._size:
            lines = file.read_text().splitlines(keepends=True)
            self._size, self._records = size, [json.loads(line) for line in lines if line.endswith("\n")]
        return self._records
