"""One kill or one damage: done to a run, which is then started again until it ends well, and looked at."""

import json
import re
import shutil
import signal
from dataclasses import dataclass, field
from pathlib import Path

from olmoe_ft.checkpoints.manifest import damage as damage_of
from olmoe_ft.checkpoints.run_checkpoints import RunCheckpoints
from olmoe_ft.stopping import TRY_AGAIN
from torture.compare import differences
from torture.configurations import START, STEPS, Configuration, make_workspace
from torture.damages import Damage
from torture.kills import AGAIN, SIGNALS, Kill
from torture.launcher import Launch
from torture.watch import Watch

LIMIT = 300.0  # seconds for a launch that nothing disturbs
ENDS_WITHIN = 90.0  # seconds after a kill, for every process of the launch
RESTARTS = 3
STRIKES = 6  # at most, of one kill
REMEDY = re.compile(r"\b(remove|move|delete|change|make|restore|correct)\b")
SIGNALLED = tuple(number.name for number in SIGNALS)
PROMISED = "the run is saved at the end of this step"
STOPPED = re.compile(r"stopped by \w+ in step (\d+) of")


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
        TortureError: the unbroken run fails, or ends where an epoch does.
    """
    whole = make_workspace(folder / "whole", configuration, start)
    launch = Launch(whole, configuration, output := whole / "output.txt")
    timeline = Watch(whole, configuration).timeline(launch, LIMIT)
    if not launch.wait(LIMIT) or launch.code() != 0:
        launch.end()
        raise TortureError(f"{configuration.name}: the unbroken run ends with {launch.code()}: {_tail(output)}")
    for run in configuration.runs:
        state = json.loads((whole / run / f"checkpoints/checkpoint-{STEPS}/trainer_state.json").read_text())
        if float(
            state["epoch"]
        ).is_integer():  # then a run that was killed at its end would have no epoch to go on with
            raise TortureError(f"{configuration.name}: its {STEPS} steps are {state['epoch']} whole epochs")
    stopped = make_workspace(folder / "stopped", configuration, start)
    launch = Launch(stopped, configuration, stopped / "output.txt")
    Watch(stopped, configuration).wait_for("checkpoint 6", launch)
    launch.end()
    return Reference(configuration, whole, stopped, timeline)


def kill(case: Kill, reference: Reference, folder: Path) -> Verdict:
    """Do it to a new run in this folder; one that has ended before is made again, and struck sooner."""
    verdict, sooner = Verdict(case), case
    for _ in range(STRIKES):
        if _in_time(sooner, reference, folder, verdict):
            _go_on(verdict, folder, reference, folder / "output.txt")
            return verdict
        shutil.rmtree(folder)
        verdict.faults.clear()
        sooner = sooner.sooner()
    folder.mkdir()
    verdict.faults.append(f"has ended {STRIKES} times before it could be struck")
    return verdict


def _in_time(case: Kill, reference: Reference, folder: Path, verdict: Verdict) -> bool:
    """Launch and strike, and note what is wrong with how it ends; whether it had not ended before."""
    start = reference.whole / START
    workspace = make_workspace(folder, case.configuration, start.resolve() if start.exists() else None)
    launch = Launch(workspace, case.configuration, output := workspace / "output.txt", case.real)
    in_time = case.strike(launch, Watch(workspace, case.configuration), reference.timeline)
    if not launch.wait(ENDS_WITHIN):
        left = "its launcher" if launch.code() is None else "processes without a launcher"
        verdict.faults.append(f"{left} still running after {ENDS_WITHIN:.0f} s")
        launch.end()
    summary = workspace / case.configuration.runs[-1] / "summary.json"
    if launch.code() == 0 and not summary.exists():
        verdict.faults.append("exit code 0 of a run that had not finished")
    if "KILL" not in case.how and not case.real and "Traceback" in output.read_text():  # torch's launcher prints one
        verdict.faults.append("a traceback after a signal")
    if case.how in SIGNALLED and PROMISED in output.read_text() and not _is_saved(case, launch, workspace):
        verdict.faults.append(f"said to be saved, and is not; ends with {launch.code()}")
    if case.how == AGAIN and in_time:
        return case.strike_again(Launch(workspace, case.configuration, output), reference.timeline)
    return in_time


def _is_saved(case: Kill, launch: Launch, workspace: Path) -> bool:
    """Whether a run that was asked once has ended as it said: behind a whole checkpoint, or behind its last step."""
    checkpoints = [RunCheckpoints(workspace / run / "checkpoints") for run in case.configuration.runs]
    said = STOPPED.findall((workspace / "output.txt").read_text())
    if not said:  # then it came behind the last step
        codes = [128 + signal.Signals[case.how]]
        whole = any(damage_of(found.of_step(STEPS)) is None for found in checkpoints)
    else:
        codes = [TRY_AGAIN]
        whole = all(any(damage_of(found.of_step(int(step))) is None for found in checkpoints) for step in said)
    return whole and (launch.has_launcher or launch.code() in codes)  # a launcher has codes of its own


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
    return "Traceback" not in text and case.file.name in last and REMEDY.search(last) is not None


def _tail(output: Path) -> str:
    """The last that was said."""
    lines = [line for line in re.split(r"[\r\n]+", output.read_text(errors="replace")) if line.strip()]
    return lines[-1][-300:] if lines else ""
