"""One kill or one damage: done to a run, which is then started again until it ends well, and looked at."""

import re
import shutil
from dataclasses import dataclass, field
from pathlib import Path

from torture.compare import differences
from torture.configurations import START, Configuration, make_workspace
from torture.damages import Damage
from torture.kills import AGAIN, Kill
from torture.launcher import Launch
from torture.watch import Watch

LIMIT = 300.0  # seconds for a launch that nothing disturbs
ENDS_WITHIN = 90.0  # seconds after a kill, for every process of the launch
RESTARTS = 3
REMEDY = re.compile(r"\b(remove|move|delete|change|make|restore|give|name)\b")


Case = Kill | Damage


@dataclass
class Verdict:
    """What became of a run.

    Args:
        refused: the sentence that ended it, if that names the damaged file and a remedy.
        named: the output names the damaged file.
        faults: what is not as it should be; none means that it survived.
    """

    case: Case
    refused: str = ""
    named: bool = False
    faults: list[str] = field(default_factory=list)


@dataclass
class Reference:
    """A run that nothing broke, and one that was killed half way with two checkpoints."""

    configuration: Configuration
    whole: Path
    stopped: Path
    timeline: dict[str, float]


class TortureError(Exception):
    """What is to be tortured does not even run."""


def make_reference(folder: Path, configuration: Configuration, start: Path | None) -> Reference:
    """Run a configuration to its end, and up to its second checkpoint.

    Raises:
        TortureError: the unbroken run fails.
    """
    whole = make_workspace(folder / "whole", configuration, start)
    launch = Launch(whole, configuration, output := whole / "output.txt")
    timeline = Watch(whole, configuration).timeline(launch, LIMIT)
    if not launch.wait(LIMIT) or launch.code() != 0:
        launch.end()
        raise TortureError(f"{configuration.name}: the unbroken run ends with {launch.code()}: {_tail(output)}")
    stopped = make_workspace(folder / "stopped", configuration, start)
    launch = Launch(stopped, configuration, stopped / "output.txt")
    Watch(stopped, configuration).wait_for("checkpoint 6", launch)
    launch.end()
    return Reference(configuration, whole, stopped, timeline)


def kill(case: Kill, reference: Reference, folder: Path) -> Verdict:
    """Do it to a new run in this folder."""
    verdict = Verdict(case)
    start = reference.whole / START
    workspace = make_workspace(folder, case.configuration, start.resolve() if start.exists() else None)
    output = workspace / "output.txt"
    launch = Launch(workspace, case.configuration, output, case.real)
    watch = Watch(workspace, case.configuration)
    case.strike(launch, watch, reference.timeline)
    if not launch.wait(ENDS_WITHIN):
        left = "its launcher" if launch.code() is None else "processes without a launcher"
        verdict.faults.append(f"{left} still running after {ENDS_WITHIN:.0f} s")
        launch.end()
    summary = workspace / case.configuration.runs[-1] / "summary.json"
    if launch.code() == 0 and not summary.exists():
        verdict.faults.append("exit code 0 of a run that had not finished")
    if "KILL" not in case.how and not case.real and "Traceback" in output.read_text():  # torch's launcher prints one
        verdict.faults.append("a traceback after a signal")
    if case.how == AGAIN:
        case.strike_again(Launch(workspace, case.configuration, output), reference.timeline)
    _go_on(verdict, workspace, reference, output)
    return verdict


def damage(case: Damage, reference: Reference, folder: Path) -> Verdict:
    """Do it to a copy of a run in this folder."""
    verdict = Verdict(case)
    shutil.copytree(reference.whole if case.finished else reference.stopped, folder, symlinks=True)
    (output := folder / "output.txt").unlink()
    case.do(folder)
    _go_on(verdict, folder, reference, output)
    text = output.read_text(errors="replace")
    verdict.named = case.file.name in text
    if verdict.faults and "checkpoints" not in case.file.parts and is_refusal(text, case):
        verdict.refused, verdict.faults = _tail(output), []
    elif not verdict.faults and not verdict.named and case.matters:
        verdict.faults.append("goes on, and does not name what was damaged")
    return verdict


def _go_on(verdict: Verdict, workspace: Path, reference: Reference, output: Path) -> None:
    """Start the same command until it ends with 0, and note what differs then."""
    for _ in range(RESTARTS):
        launch = Launch(workspace, reference.configuration, output)
        if not launch.wait(LIMIT):
            launch.end()
            verdict.faults.append(f"hangs: {_tail(output)}")
            return
        if launch.code() == 0:
            verdict.faults += differences(reference.configuration, workspace, reference.whole)
            return
    verdict.faults.append(f"ends with {launch.code()}: {_tail(output)}")


def is_refusal(text: str, case: Damage) -> bool:
    """Whether it ends with a sentence about the file and what to do, instead of a traceback."""
    last = " ".join(text.splitlines()[-3:])
    names = {case.file.name, case.file.stem, case.file.parent.name}
    return "Traceback" not in text and any(name in last for name in names) and REMEDY.search(last) is not None


def _tail(output: Path) -> str:
    """The last that was said."""
    lines = [line for line in re.split(r"[\r\n]+", output.read_text(errors="replace")) if line.strip()]
    return lines[-1][-300:] if lines else ""
