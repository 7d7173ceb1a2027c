"""`make gpu`: the parts in their order, each with its own time, and a table of what they found.

PYTHONPATH=.:benchmarks python -m gpu.run                          on a machine with a GPU and everything installed
PYTHONPATH=.:benchmarks python -m gpu.run --parts speed,memory     some parts, after a repair say
PYTHONPATH=.:benchmarks python -m gpu.run --dry                    on a CPU, at tiny sizes; writes no results
"""

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import typer
from rich.console import Console

from gpu.findings import DRY, Finding, exit_code, findings_table
from gpu.part import MODULES

REPOSITORY = Path(__file__).parents[2]
# seconds that each may take on a card, 8 minutes in all
LIMITS = {
    "machine": 10, "correctness": 60, "tests": 45, "optimizer": 30, "training": 170, "waits": 35, "rates": 20,
    "speed": 70, "memory": 40,
}  # fmt: skip
SLOWER = 5  # times as long as a card may a CPU take for its tiny sizes
LEAST = 8  # seconds, below which a part would not get through its imports
Command = Callable[[str, float], list[str]]


def child_environment(dry: bool) -> dict[str, str]:
    """No network, no tracking; in a dry run no GPU either, and Triton's kernels in its interpreter."""
    paths = [str(REPOSITORY), str(REPOSITORY / "benchmarks"), os.environ.get("PYTHONPATH", "")]
    fixed = {
        "PYTHONPATH": os.pathsep.join(filter(None, paths)),
        "PYTHONUNBUFFERED": "1",
        "HF_HUB_OFFLINE": "1",
        "WANDB_MODE": "offline",
        "TOKENIZERS_PARALLELISM": "false",
        "KINETO_LOG_LEVEL": "99",  # torch's profiler announces itself otherwise
    }
    if dry:
        fixed |= {"CUDA_VISIBLE_DEVICES": "", "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
    return {**os.environ, **fixed}


class Run:
    """Starts parts and keeps what they find.

    Args:
        out: gets `findings.jsonl`, `log.txt` with everything the parts printed, and files of their own.
        seconds: for all parts together.
        command: the process of a part, from its name and its seconds.
        show: is given each line as it comes.
    """

    def __init__(self, out: Path, seconds: float, command: Command, show: Callable[[str], object] = print) -> None:
        self.out, self.command, self.show = out, command, show
        self.ends = time.monotonic() + seconds
        self.findings: list[Finding] = []
        out.mkdir(parents=True, exist_ok=True)
        for name in ("findings.jsonl", "log.txt"):
            (out / name).write_text("")

    def note(self, finding: Finding) -> None:
        self.findings.append(finding)
        self.show(finding.to_json())
        with (self.out / "findings.jsonl").open("a") as stream:
            stream.write(finding.to_json() + "\n")

    def go(self, name: str, limit: float, environment: dict[str, str]) -> None:
        """Run a part until it ends or its time is over; that it crashed or had no time is a finding too."""
        if (limit := min(limit, self.ends - time.monotonic())) < LEAST:
            self.note(Finding(name, name, None, {"skipped": f"no time left: {max(0.0, limit):.0f} s"}))
            return
        began = time.monotonic()
        code = self._process(name, limit, environment)
        whole = f"{name}: all of it"
        if code is None:
            self.note(Finding(name, whole, None, {"error": f"stopped, its {limit:.0f} s were over"}))
        elif code != 0:
            self.note(Finding(name, whole, False, {"error": f"its process ended with code {code}"}))
        else:
            self.note(Finding(name, whole, None, {"seconds": round(time.monotonic() - began, 1)}))

    def _process(self, name: str, limit: float, environment: dict[str, str]) -> int | None:
        """The exit code of a part, None if it was stopped; what it wrote into its folder for passing things is gone."""
        late = threading.Event()
        with ExitStack() as stack:
            scratch = stack.enter_context(TemporaryDirectory(prefix="gpu-", ignore_cleanup_errors=True))
            log = stack.enter_context((self.out / "log.txt").open("a"))
            print(f"\n===== {name}", file=log, flush=True)
            process = subprocess.Popen(
                self.command(name, limit), stdout=subprocess.PIPE, stderr=log, text=True, cwd=REPOSITORY,
                env=environment | {"TMPDIR": scratch}, start_new_session=True,
            )  # fmt: skip
            stack.callback(_end, process)  # what it has started, and itself where this run is interrupted
            timer = threading.Timer(limit, lambda: (late.set(), _end(process)))
            timer.start()
            stack.callback(timer.cancel)
            assert process.stdout is not None
            for line in process.stdout:
                self.note(Finding.from_json(line))
            code = process.wait()
        return None if late.is_set() else code


def _end(process: subprocess.Popen[str]) -> None:
    """A part with all that it started, which is its process group."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def keep_results(out: Path, since: float) -> None:
    """The table of docs/performance.md from all results, and a copy of those that this run has measured."""
    from speed_report import RESULTS, write_document

    measured = [file for file in RESULTS.glob("*.json") if file.stat().st_mtime >= since]
    for file in measured:
        shutil.copy(file, out)
    if measured:
        write_document()


def main(
    parts: Annotated[str, typer.Option(help="Which, in this order.")] = ",".join(LIMITS),
    minutes: Annotated[float, typer.Option(help="For all parts together.")] = 8,
    out: Annotated[Path, typer.Option(envvar="OUT", help="Where findings go.")] = Path("runs/gpu"),
    dry: Annotated[bool, typer.Option("--dry", help="On a CPU at tiny sizes, whatever there is.")] = False,
) -> None:
    from olmoe_ft.environment import set_up

    set_up()
    import torch

    chosen: Sequence[str] = parts.split(",")
    if unknown := [name for name in chosen if name not in MODULES]:
        raise typer.BadParameter(f"{', '.join(unknown)}: no such part; there are {', '.join(MODULES)}")
    if not dry and not torch.cuda.is_available():
        print("no CUDA device: a dry run")
        dry = True
    out, began = out.resolve(), time.time()

    def command(name: str, limit: float) -> list[str]:
        return [sys.executable, "-m", "gpu.part", name, f"{limit:.0f}", str(out), *(["--dry"] if dry else [])]

    slower = SLOWER if dry else 1
    run = Run(out, slower * 60 * minutes, command)
    for name in chosen:
        run.go(name, slower * LIMITS[name], child_environment(dry))
    if not dry:
        keep_results(out, began)
    Console(width=160).print(findings_table(run.findings, dry))
    for finding in run.findings:
        if finding.ok is False:  # once more, where the end of the output is all that is seen
            print(f"wrong: {finding.to_json()}")
    if dry:
        print(DRY)
    sys.exit(exit_code(run.findings))


if __name__ == "__main__":
    typer.run(main)
