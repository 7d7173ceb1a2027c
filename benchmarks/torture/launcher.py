"""Launches in an instant: torch, TRL and DeepSpeed are imported once, and every process of a run is forked from there.

`multiprocessing`'s fork server has one thread and has started no process group. What it forks leads a session of its
own and does what torch's launcher does: it serves the store, starts the ranks with their environment, passes signals
on, and ends all when one fails. With one process it is the run itself, as `olmoe-ft train` is.
"""

import atexit
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

import psutil

from olmoe_ft.training.builds import check_builds
from torture.configurations import REPOSITORY, Configuration

PRELOADED = ["torture.imports"]
PATIENCE = 30.0  # seconds of torch's launcher between SIGTERM and SIGKILL
PASSED_ON = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)
ARGUMENTS = ["train", "recipe.yaml"]
FILES = {"one": "configs/accelerate/cpu.yaml", "zero2": "configs/accelerate/zero2.yaml", "zero3": "zero3.yaml"}
DEEPSPEED = {"zero2": "configs/deepspeed/zero2.json", "zero3": "zero3.json"}
server = multiprocessing.get_context("forkserver")


def prepare(cache: Path) -> None:
    """Set what this process, the fork server and all runs have in their environment; before the first launch.

    Args:
        cache: a folder for what libraries keep.
    """
    paths = [str(REPOSITORY), str(REPOSITORY / "benchmarks"), os.environ.get("PYTHONPATH", "")]
    os.environ |= {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": os.pathsep.join(filter(None, paths)),
        "OMP_NUM_THREADS": "1",
        "DS_ACCELERATOR": "cpu",
        "CUDA_VISIBLE_DEVICES": "",
        "HF_HUB_OFFLINE": "1",
        "HF_HOME": str(cache / "huggingface"),
        "WANDB_MODE": "offline",
        "WANDB_SILENT": "true",
        "TOKENIZERS_PARALLELISM": "false",
        "COLUMNS": "200",
        "PET_SIGNALS_TO_HANDLE": "SIGTERM,SIGINT,SIGUSR1",
        "PYTHONWARNINGS": "ignore:resource_tracker",  # killed processes leave semaphores, which it then removes
    }
    server.set_forkserver_preload(PRELOADED)
    check_builds()  # a lock that a killed build has left would stop the fork server, without a word


_launches: set["Launch"] = set()


def end_all() -> None:
    """Kill what is left of every launch."""
    for launch in list(_launches):
        launch.end()


class Launch:
    """One launch of a configuration in its workspace.

    Args:
        real: through `accelerate launch`, which imports everything in every process.
        output: the file that everything it prints is added to.
    """

    def __init__(self, workspace: Path, configuration: Configuration, output: Path, real: bool = False) -> None:
        self.began = time.monotonic()
        self._process: multiprocessing.process.BaseProcess | subprocess.Popen[bytes]
        output.touch()  # a launch may be killed before it has opened it
        if real:
            command = ["accelerate", "launch", "--quiet", "--config_file", FILES[configuration.shape]]
            with output.open("ab") as stream:
                self._process = subprocess.Popen(
                    [*command, "--main_process_port", "0", "-m", "olmoe_ft", *ARGUMENTS],
                    cwd=workspace, stdin=subprocess.DEVNULL, stdout=stream, stderr=stream, start_new_session=True,
                )  # fmt: skip
        else:
            self._process = server.Process(target=_launch, args=(workspace, configuration, output))
            self._process.start()
        assert self._process.pid is not None
        self.pid = self._process.pid
        self.has_launcher = real or configuration.processes > 1
        self._seen: set[psutil.Process] = set()
        _launches.add(self)

    def code(self) -> int | None:
        """The exit code of the launcher, negative for a signal; None while it runs."""
        if isinstance(self._process, subprocess.Popen):
            return self._process.poll()
        self._process.join(0)
        return self._process.exitcode

    def wait(self, seconds: float) -> bool:
        """Whether the launch, every process of it, has ended within this time."""
        end = time.monotonic() + seconds
        while self._living() or self.code() is None:
            if time.monotonic() > end:
                return False
            time.sleep(0.05)
        _launches.discard(self)
        return True

    def ranks(self) -> list[int]:
        """The processes that train, in their order."""
        if not self.has_launcher:
            return [self.pid]
        self._look()
        with suppress(psutil.Error):
            return sorted(child.pid for child in psutil.Process(self.pid).children())
        return []

    def send(self, number: signal.Signals, pid: int) -> bool:
        """Whether there was such a process."""
        with suppress(ProcessLookupError):
            os.kill(pid, number)
            return True
        return False

    def end(self) -> bool:
        """Kill what is left of it; whether anything was."""
        killed = [self.send(signal.SIGKILL, pid) for pid in self._living()]
        self.wait(10)
        return any(killed)

    def _look(self) -> None:
        """Remember its processes: one whose launcher is gone cannot be found from there."""
        with suppress(psutil.Error):
            launcher = psutil.Process(self.pid)
            self._seen |= {launcher, *launcher.children(recursive=True)}

    def _living(self) -> list[int]:
        self._look()
        return [process.pid for process in self._seen if _runs(process)]


def _runs(process: psutil.Process) -> bool:
    with suppress(psutil.Error):
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    return False


def _launch(workspace: Path, configuration: Configuration, output: Path) -> None:
    """In the forked process: launch, and be the launcher."""
    os.setsid()
    os.chdir(workspace)
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    descriptor = os.open(output, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    os.environ |= {"ACCELERATE_MIXED_PRECISION": "no"}
    if configuration.processes == 1:
        os.environ["ACCELERATE_USE_CPU"] = "True"
        _rank({})
    os.environ |= {
        "ACCELERATE_USE_DEEPSPEED": "true",
        "ACCELERATE_DEEPSPEED_ZERO3_INIT": str(configuration.shape == "zero3").lower(),
        "ACCELERATE_DEEPSPEED_CONFIG_FILE": DEEPSPEED[configuration.shape],
        "ACCELERATE_CONFIG_DS_FIELDS": "deepspeed_config_file,zero3_init_flag",
    }
    sys.exit(_be_launcher(configuration.processes))


def _be_launcher(processes: int) -> int:
    from torch.distributed import TCPStore

    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    heard: list[int] = []
    for number in PASSED_ON:
        signal.signal(number, lambda number, frame: heard.append(number))
    world = {
        "WORLD_SIZE": str(processes), "LOCAL_WORLD_SIZE": str(processes), "GROUP_RANK": "0", "GROUP_WORLD_SIZE": "1",
        "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(store.port), "TORCHELASTIC_USE_AGENT_STORE": "True",
        "TORCHELASTIC_RUN_ID": "none", "TORCHELASTIC_RESTART_COUNT": "0", "TORCHELASTIC_MAX_RESTARTS": "0",
    }  # fmt: skip
    ranks = []
    for rank in map(str, range(processes)):
        error = {"TORCHELASTIC_ERROR_FILE": os.path.abspath(f"error-{rank}.json")}
        if (pid := os.fork()) == 0:
            _rank(world | error | {"RANK": rank, "LOCAL_RANK": rank})
        ranks.append(pid)
    failed, ends = False, float("inf")
    while ranks:
        asked = [*heard]
        heard.clear()
        for pid in list(ranks):
            ended, status = os.waitpid(pid, os.WNOHANG)
            if ended:
                ranks.remove(pid)
                if status and not failed:
                    failed = True
                    asked.append(signal.SIGTERM)
        if time.monotonic() > ends:
            asked = [signal.SIGKILL]
        for request in asked:
            failed, ends = True, min(ends, time.monotonic() + PATIENCE)
            for pid in ranks:
                os.kill(pid, request)
        time.sleep(0.05)
    return int(failed)


def _rank(environment: dict[str, str]) -> NoReturn:
    """Be one process of a run."""
    for number in PASSED_ON:
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
    os.environ |= environment
    random.seed()  # as after a start of the interpreter
    sys.argv = ["olmoe-ft", *ARGUMENTS]
    from olmoe_ft.ending import program

    try:
        program()
    finally:
        atexit._run_exitfuncs()  # it leaves from there
        os._exit(1)
