"""A SLURM job for a recipe: one of the files in configs/slurm/, filled in from the recipe's plan, and submitted.

The files work as they are, and people can fill them in by hand. Here only values are replaced: those after
`#SBATCH --option=` and after `NAME=`.
"""

import math
import re
import shlex
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path

from olmoe_ft.constants import GIB
from olmoe_ft.planning.job import Needs
from olmoe_ft.planning.machine import Machine
from olmoe_ft.recipe import Recipe, UserError
from olmoe_ft.shipped import FILES

MARGIN, START = 1.5, 1800  # a factor on the predicted time; seconds for the start, the first save and the last
WITHOUT_A_TIME = 12  # hours
WRITES = 0.5e9  # bytes a second to a shared disk, assumed
STOP = 120  # seconds: SLURM's signal may come a minute late, and a process needs some to end
CPUS = 8  # per process
SIGNAL = "B:USR1@"  # only to the job's shell; then come the seconds before the job's end
OPTION = re.compile(r"(?P<name>[a-z][a-z-]*)(=(?P<value>.+))?")

Options = dict[str, str | None]  # of sbatch: "" for an option without a value, None to leave it out


def job_file(
    recipe: Recipe, command: Sequence[str], accelerate: str, machine: Machine, needs: Needs, given: Sequence[str] = ()
) -> str:
    """The text of a job.

    Args:
        command: the recipe's name and overrides, as `train` takes them.
        accelerate: the machine's file.
        given: options of sbatch, such as `partition=gpu`, which replace ours.
    Raises:
        UserError: one of them is not an option, or the job would not work with it; or the machine's file is not where
            the launcher looks for it.
    """
    own = dict(map(_option, given))
    options = _options(recipe, machine, needs) | own
    name, *overrides = map(shlex.quote, command)
    values = {
        "export PATH": f'{shlex.quote(str(Path(sys.executable).parent))}:"$PATH"',
        "RECIPE": name,
        "OVERRIDES": f"({' '.join(overrides)})",
        "ACCELERATE": _launched_with(accelerate, machine),
        "RUN": str(recipe.run_dir),
        "SUMMARY": str(recipe.runs[-1].run_dir / "summary.json"),
        "export TORCH_ELASTIC_SHUTDOWN_TIMEOUT": str(options["signal"]).removeprefix(SIGNAL),
    }
    template = FILES / "configs/slurm" / ("one_node.sbatch" if machine.nodes == 1 else "nodes.sbatch")
    text = template.read_text(encoding="utf-8")
    for option, value in options.items():
        text = _with_option(text, option, value)
    for variable, value in values.items():
        before, after = re.split(f"(?m)^{variable}=.*$", text)
        text = f"{before}{variable}={value}{after}"
    shell, script = text.split("\n", 1)
    size = f"processes: {machine.processes}, computers: {machine.nodes}"
    heading = f"Filled in by `olmoe-ft launch --slurm` for {name} with {accelerate} ({size})."
    reasons = [
        f"--{option}: {why}"
        for option, why in _reasons(machine, needs).items()
        if option not in own and options[option]
    ]
    comments = [line for text in (heading, *reasons) for line in textwrap.wrap(text, 118)]
    return "\n".join([shell, *(f"# {line}" for line in comments), script])


def _launched_with(accelerate: str, machine: Machine) -> str:
    if machine.processes == 1 and not machine.deepspeed:
        return ""
    if not Path(accelerate).exists():  # then it comes with the package and names files by paths from here
        raise UserError(
            f"{accelerate}: there is no such file in this folder, where the job will look for it; "
            f"`olmoe-ft recipes copy {accelerate.removesuffix('.yaml')}` writes it"
        )
    return shlex.quote(accelerate)


def _options(recipe: Recipe, machine: Machine, needs: Needs) -> Options:
    each = machine.processes // machine.nodes
    hours = WITHOUT_A_TIME if needs.seconds is None else math.ceil((needs.seconds * MARGIN + START) / 3600)
    lead = 60 * math.ceil((STOP + needs.step + needs.checkpoint / WRITES) / 60)
    return {
        "job-name": recipe.name.replace("/", "-"),
        "nodes": str(machine.nodes),
        "gpus-per-node": str(each) if machine.gpu else None,
        "cpus-per-task": str(each * CPUS),
        "mem": f"{math.ceil(needs.host / GIB)}G",
        "time": f"{hours}:00:00",
        "signal": f"{SIGNAL}{lead}",
    }


def _reasons(machine: Machine, needs: Needs) -> dict[str, str]:
    """Why the options have their values, for comments in the job's file."""
    if needs.seconds is not None:
        time = (
            f"{needs.steps:,} steps, the longest {needs.step:.3g} s, as `olmoe-ft plan` predicts (not measured), times "
            f"{MARGIN:g}, and {START // 60} minutes to start and to save."
        )
    else:
        lacking = "rows that can be read here" if machine.gpu else "GPUs"
        time = f"a guess, because no time is known without {lacking}. The next job does what is left then."
    return {
        "gpus-per-node": f"each needs {needs.device / GIB:.1f} GiB of its own memory.",
        "mem": "for each process, its libraries and its weights while they are loaded.",
        "time": time,
        "signal": f"{STOP // 60} minutes, a step, and a checkpoint of up to {needs.checkpoint / 1e9:.2g} GB at "
        f"{WRITES / 1e9:g} GB/s (assumed).",
    }


def _option(given: str) -> tuple[str, str]:
    found = OPTION.fullmatch(given)
    if found is None:
        raise UserError(
            f"--sbatch: found {given!r}; allowed: one long option of sbatch, such as partition=gpu or exclusive"
        )
    name, value = found["name"], found["value"] or ""
    if name == "nodes":
        raise UserError(f"--sbatch {given}: the plan must know the number of nodes; give --nodes {value} instead")
    if name == "signal" and not re.fullmatch(rf"{SIGNAL}\d+", value):
        raise UserError(
            f"--sbatch: found {given}; allowed: signal={SIGNAL}SECONDS, the only signal that the job handles"
        )
    return name, value


def _with_option(text: str, option: str, value: str | None) -> str:
    line = "" if value is None else f"#SBATCH --{option}" + (f"={shlex.quote(value)}" if value else "") + "\n"
    place = re.search(rf"(?m)^##?SBATCH --{option}(=.*)?\n", text)
    start, end = place.span() if place else 2 * (text.index("#SBATCH"),)
    return text[:start] + line + text[end:]


def submit(text: str, file: Path) -> None:
    """Write a job's file and submit it to SLURM, which answers with the job's number.

    Raises:
        UserError: there is no SLURM here, it refuses the job, or the file exists with another text.
    """
    if (sbatch := shutil.which("sbatch")) is None:
        raise UserError(
            "sbatch: there is no such command here, so this computer has no SLURM; launch on one that has, or look at "
            "the job with --dry-run"
        )
    if there := file.exists():
        if file.read_text(encoding="utf-8") != text:
            raise UserError(
                f"{file}: the file exists already, with another job; submit it with `sbatch {file}`, or move it away"
            )
    else:
        file.write_text(text, encoding="utf-8")
    done = subprocess.run([sbatch, str(file)], capture_output=True, text=True)
    if done.returncode != 0:
        if not there:
            file.unlink()
        raise UserError(
            f"sbatch refuses the job: {(done.stderr or done.stdout).strip()}; change its options with --sbatch"
        )
    print(f"{done.stdout.strip()} ({file})")
