"""`python fork_server.py SOCKET`: imports what a run needs once, and forks a process for each that is asked for.

A launch spends most of its seconds on imports. Here one process imports torch, TRL and DeepSpeed, starts no thread, and
then forks. A request on the socket is one line of JSON, with the descriptors of stdin, stdout and stderr:
`{"arguments": ["-m", "olmoe_ft", …], "directory": …, "environment": {…}}`, Python's own arguments. The answer is
`{"pid": …}` at once and `{"code": …}` at the end, a line each; in between a signal's number is passed on. The process
has its own environment, directory, streams and default signal handlers; exit code, traceback and what was registered
with `atexit` are those of an interpreter. Whoever closes the connection kills it.

`accelerate launch` and `torchrun` start their processes by `sys.executable`, which in a forked process is
`forked_python.py`: it asks for a fork in the place of an interpreter.
"""

import atexit
import gc
import importlib
import json
import os
import pkgutil
import runpy
import select
import signal
import socket
import sys
import traceback
from pathlib import Path
from typing import Any

DEFAULT = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1)
LAUNCHERS = ("accelerate.commands.accelerate_cli", "accelerate.commands.launch", "torch.distributed.run")
HEAVY = (
    "deepspeed.runtime.engine",
    "deepspeed.runtime.zero.stage3",
    "torch.utils.serialization",
    "torch.distributed.elastic.agent.server.local_elastic_agent",
    "torch.distributed.elastic.rendezvous.dynamic_rendezvous",
    "transformers.models.olmoe",
    "wandb",
)


def import_everything() -> None:
    """All of olmoe_ft and of the launchers; and DeepSpeed's kernel for processes that share memory."""
    import olmoe_ft

    for module in pkgutil.walk_packages(olmoe_ft.__path__, "olmoe_ft."):
        if not module.name.endswith("__main__") and ".kernels" not in module.name:
            importlib.import_module(module.name)
    for name in (*HEAVY, *LAUNCHERS):
        importlib.import_module(name)
    from deepspeed.comm.torch import build_shm_op

    from olmoe_ft.training.builds import check_builds

    check_builds()  # a lock that a killed build has left would stop the server, without a word
    build_shm_op()


def serve(path: str) -> dict[str, Any]:
    """Answer requests until the one who started this process is gone; returns a request, in a forked process alone."""
    parent = os.getppid()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen(64)
        listener.settimeout(1)
        names = [(task / "comm").read_text().strip() for task in Path("/proc/self/task").iterdir()]
        others = len(names) - 1 - names.count("jemalloc_bg_thd")  # which pyarrow's allocator starts anew in a fork
        assert others == 0, f"a thread would be missing in what is forked: {names}"
        print("ready", flush=True)
        overseers: set[int] = set()
        while os.getppid() == parent:
            overseers = {pid for pid in overseers if os.waitpid(pid, os.WNOHANG)[0] == 0}
            try:
                connection, _ = listener.accept()
            except TimeoutError:
                continue
            if (pid := os.fork()) == 0:
                break
            overseers.add(pid)
            connection.close()
        else:
            os._exit(0)
    return oversee(connection)


def oversee(connection: socket.socket) -> dict[str, Any]:
    """Fork the process that is asked for, and pass signals to it and its end back. Returns in that process alone."""
    connection.settimeout(None)
    text, streams, *_ = socket.recv_fds(connection, 2**20, 3)
    while not text.endswith(b"\n"):
        text += connection.recv(2**20)
    request = json.loads(text)
    if (pid := os.fork()) == 0:
        connection.close()
        for number, stream in enumerate(streams):
            os.dup2(stream, number)
            os.close(stream)
        return request
    for stream in streams:
        os.close(stream)
    connection.sendall(json.dumps({"pid": pid}).encode() + b"\n")
    ended = os.pidfd_open(pid)
    while True:
        ready, _, _ = select.select([connection, ended], [], [])
        if ended in ready:
            code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
            try:
                connection.sendall(json.dumps({"code": code}).encode() + b"\n")
            except OSError:
                pass  # nobody waits any more
            os._exit(0)
        heard = connection.recv(1)
        os.kill(pid, heard[0] if heard else signal.SIGKILL)
        if not heard:
            os._exit(0)


def run(request: dict[str, Any], imported: dict[str, str], executable: str) -> None:
    """Take on what a new process would have, and do what `python ARGUMENTS` does.

    Args:
        request: its arguments are `-m MODULE …` or `FILE …`, with `-u` before it or not.
        imported: environment variables that the imports have set.
        executable: for launchers, what starts their processes.
    """
    for number in DEFAULT:
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
    os.environ.clear()
    os.environ.update(imported | request["environment"])
    os.chdir(request["directory"])
    arguments = request["arguments"]
    if arguments[0] == "-u":
        sys.stdout.reconfigure(write_through=True)
        del arguments[0]
    if arguments[0] == "-m":
        module = arguments[1]
        sys.argv, sys.path[0] = arguments[1:], os.getcwd()
        if module in LAUNCHERS:
            sys.executable = executable
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    else:
        sys.argv, sys.path[0] = arguments, str(Path(arguments[0]).resolve().parent)
        runpy.run_path(arguments[0], run_name="__main__")


def write_executable(folder: Path) -> str:
    """What the launchers start in the place of Python."""
    executable = folder / "python"
    client = Path(__file__).with_name("forked_python.py").read_text()
    executable.write_text(f"#!{sys.executable} -IS\n{client}")
    executable.chmod(0o755)
    return str(executable)


def main() -> None:
    socket_path = Path(sys.argv[1])
    before = dict(os.environ)
    import_everything()
    imported = {name: value for name, value in os.environ.items() if before.get(name) != value}
    executable = write_executable(socket_path.parent)
    gc.freeze()  # else every run's collector looks through all of it
    request = serve(str(socket_path))
    try:
        run(request, imported, executable)
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 0 if end.code is None else 1
        if not isinstance(end.code, int | None):
            print(end.code, file=sys.stderr)
    except BaseException:
        traceback.print_exc()
        code = 1
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # or libraries that the process itself would not have imported print what they find alive


if __name__ == "__main__":
    main()
