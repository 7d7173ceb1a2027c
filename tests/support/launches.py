"""Run recipes as a user does, in a folder of their own: `olmoe-ft train …`, `accelerate launch … -m olmoe_ft train …`.

Most processes are forked by `fork_server.py`, which has imported what they need. `real=True` starts a new interpreter:
where a test sends signals to ranks, looks at processes, or sets what libraries read while they are imported.
"""

import atexit
import functools
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from support import REPOSITORY, SUPPORT

ENVIRONMENT = {
    **os.environ,
    "OMP_NUM_THREADS": "1",  # two processes on two cores
    "HF_HUB_OFFLINE": "1",
    "COLUMNS": "200",  # rich wraps at the terminal's width
    # this checkout, wherever the command starts; and what the programs in tests/support import
    "PYTHONPATH": os.pathsep.join((str(REPOSITORY), str(REPOSITORY / "tests"))),
}
LAUNCHER = "accelerate.commands.accelerate_cli"  # the module behind `accelerate`
READ_ON_IMPORT = ("HF_", "MKL_", "OMP_", "PYTHON", "TRITON_", "TOKENIZERS_", "WANDB_", "CUDA_", "TRANSFORMERS_")
# ten steps over a part of the skills, the same sixteen packs or pairs a step on one process and on two
SHORT = (
    "training.max_steps=10",
    "training.per_device_train_batch_size=8",
    "training.logging_steps=1",
    "training.save_strategy='no'",
    "data.train.0.max_rows=900",
    "data.answers=null",
    "tracking.wandb='off'",
)
SFT_START = {"model": {"config": "configs/model/olmoe_tiny.json", "tokenizer": "data/skills/tokenizer", "path": None}}
CONFIGS = {"one": "configs/accelerate/cpu.yaml", "zero2": "configs/accelerate/zero2.yaml", "zero3": "zero3-all.yaml"}


@dataclass
class Run:
    path: Path
    output: str

    @property
    def final(self) -> Path:
        return self.path / "final"

    @property
    def records(self) -> list[dict]:
        """The records of training steps, without the closing one."""
        lines = (self.path / "metrics.jsonl").read_text().splitlines()
        return [record for record in map(json.loads, lines) if "loss" in record]


def make_workspace(folder: Path) -> Path:
    """A folder where the repository's relative paths hold and `runs/` is its own."""
    for name in ("recipes", "configs", "data"):
        (folder / name).symlink_to(REPOSITORY / name)
    # everything is above ZeRO-3's usual threshold only in large models: here every parameter is to be partitioned
    zero3 = json.loads((REPOSITORY / "configs/deepspeed/zero3.json").read_text())
    zero3["zero_optimization"]["stage3_param_persistence_threshold"] = 0
    (folder / "zero3.json").write_text(json.dumps(zero3))
    config = (REPOSITORY / "configs/accelerate/zero3.yaml").read_text()
    (folder / "zero3-all.yaml").write_text(config.replace("configs/deepspeed/zero3.json", "zero3.json"))
    return folder


@functools.cache
def _server() -> str:
    """The socket of this process's fork server, which is started by the first request."""
    folder = tempfile.mkdtemp(prefix="olmoe_ft-fork-")
    path = os.path.join(folder, "socket")
    process = subprocess.Popen(
        [sys.executable, str(SUPPORT / "fork_server.py"), path],
        env=ENVIRONMENT, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    while (line := process.stdout.readline()) != "ready\n":
        assert line, "the fork server has ended"
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    atexit.register(process.wait)
    atexit.register(process.terminate)
    return path


class Forked:
    """`python ARGUMENTS` as a process that the fork server has forked: what `subprocess.Popen` is for a new one.

    Args:
        arguments: `-m MODULE …` or `FILE …`.
        stdout, stderr: open files.
    """

    def __init__(self, arguments: Sequence[str], directory: Path, environment: dict[str, str], stdout, stderr) -> None:
        for name in environment.keys() | ENVIRONMENT.keys():
            if name.startswith(READ_ON_IMPORT):
                assert environment.get(name) == ENVIRONMENT.get(name), f"{name} is read on import: real=True"
        self._connection = socket.socket(socket.AF_UNIX)
        self._connection.connect(_server())
        request = {"arguments": list(arguments), "directory": str(directory), "environment": environment}
        text = json.dumps(request).encode() + b"\n"
        with open(os.devnull) as nothing:
            streams = [nothing.fileno(), stdout.fileno(), stderr.fileno()]
            sent = socket.send_fds(self._connection, [text], streams)
        self._connection.sendall(text[sent:])
        self._answers = self._connection.makefile()
        self.pid: int = json.loads(self._answers.readline())["pid"]
        self.returncode: int | None = None

    def send_signal(self, number: signal.Signals) -> None:
        self._connection.sendall(bytes([number]))

    def wait(self, timeout: float) -> int:
        """Its exit code; kills it when the time is over."""
        if self.returncode is None:
            self._connection.settimeout(timeout)
            try:
                self.returncode = json.loads(self._answers.readline())["code"]
            finally:
                self._connection.close()
                self._answers.close()
        assert self.returncode is not None
        return self.returncode


def run_python(
    workspace: Path,
    *arguments: str,
    real: bool = False,
    timeout: float = 300,
    **environment: str,
) -> subprocess.CompletedProcess[str]:
    """`python ARGUMENTS` in the workspace; its output as text."""
    everything = ENVIRONMENT | environment
    if real:
        return subprocess.run(
            [sys.executable, *arguments],
            cwd=workspace,
            env=everything,
            capture_output=True,
            text=True,
            encoding="utf-8",
            timeout=timeout,
        )
    with tempfile.TemporaryFile("w+") as stdout, tempfile.TemporaryFile("w+") as stderr:
        code = Forked(arguments, workspace, everything, stdout, stderr).wait(timeout)
        stdout.seek(0)
        stderr.seek(0)
        return subprocess.CompletedProcess(list(arguments), code, stdout.read(), stderr.read())


def olmoe_ft(workspace: Path, *arguments: str, real: bool = False, **environment: str):
    """`olmoe-ft …` in the workspace; `real` is the command that pip has installed."""
    if real:
        return subprocess.run(
            ["olmoe-ft", *arguments],
            cwd=workspace,
            env=ENVIRONMENT | environment,
            capture_output=True,
            text=True,
            timeout=300,
        )
    return run_python(workspace, "-m", "olmoe_ft", *arguments, **environment)


def launch(
    workspace: Path,
    config: str,
    recipe: str,
    *overrides: str,
    processes: int | None = None,
    program: tuple[str, ...] = ("-m", "olmoe_ft"),
    real: bool = False,
) -> str:
    """`accelerate launch` in the workspace; returns what it printed, and fails with it.

    Args:
        processes: where they are not as many as the configuration says.
        program: what is launched in the place of the command.
    """
    number = [] if processes is None else ["--num_processes", str(processes)]
    command = ["-m", LAUNCHER, "launch", "--config_file", config, *number, "--main_process_port", "0"]
    result = run_python(workspace, *command, *program, "train", recipe, *overrides, real=real)
    output = result.stdout + result.stderr
    assert result.returncode == 0, output[-6000:]
    return output
