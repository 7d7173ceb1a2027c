"""What a process does that is asked to stop: before it trains, while it does, and in C where no Python runs."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from olmoe_ft.stopping import LAUNCHER_ENDED

START = """
import ctypes, sys, time
from olmoe_ft import stopping
stopping.end_in_order()
"""
TRAINS = """
with stopping.at_steps():
    stopping.only_note()
    print("ready", flush=True)
    while not stopping.asked():
        time.sleep(0.01)
    print("asked", stopping.asked(), flush=True)
    {then}
"""
WAITS = "print('ready', flush=True)\nwhile True: time.sleep(0.01)"
WAITS_IN_C = """
import threading
lock = ctypes.create_string_buffer(64)  # a pthread_mutex_t
wait = ctypes.CDLL(None).pthread_mutex_lock
wait(lock)
go = threading.Event()
threading.Thread(target=lambda: (go.wait(), print("ready", flush=True)), daemon=True).start()
with stopping.done_at_a_stop(lambda: print("undone", flush=True)):
    sys.setswitchinterval(600)  # the other thread gets no turn until this one waits in C
    go.set()
    wait(lock)
"""
SHELL = {name: value for name, value in os.environ.items() if not name.startswith(("ACCELERATE_", "TORCHELASTIC_"))}
SHELL["PYTHONPATH"] = str(Path(__file__).parents[1])
ALL = [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGHUP]


def started(body: str, ignored: signal.Signals | None = None, **environment: str) -> subprocess.Popen[str]:
    """A process that has come to where it prints "ready"."""
    process = subprocess.Popen(
        [sys.executable, "-c", START + body],
        env=SHELL | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: [  # tests may run behind nohup, or in the background of a shell
            signal.signal(number, signal.SIG_IGN if number == ignored else signal.SIG_DFL) for number in ALL
        ],
    )
    assert process.stdout is not None and process.stdout.readline() == "ready\n"
    return process


def ended(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    out, err = process.communicate(timeout=60)
    return process.returncode, out, err


@pytest.mark.parametrize("number", ALL)
def test_a_command_ends_in_order_and_says_by_what(number):
    process = started(WAITS)
    process.send_signal(number)
    assert ended(process) == (128 + number, "", f"stopped by {number.name}\n")


@pytest.mark.parametrize("number", ALL)
def test_while_it_trains_it_is_noted_and_said(number):
    process = started(TRAINS.format(then="sys.exit(75)"))
    process.send_signal(number)
    code, out, err = ended(process)
    assert (code, out) == (75, f"asked {number}\n")
    assert err.startswith(
        f"{number.name}: the run will be saved at the end of this step, and then stop; a second signal ends it"
    )


def test_what_nobody_asked_for_ends_the_command_behind_the_steps():
    process = started(TRAINS.format(then="pass") + "print('not here')")
    process.send_signal(signal.SIGTERM)
    code, out, err = ended(process)
    assert (code, out) == (143, "asked 15\n") and err.splitlines()[-1] == "stopped by SIGTERM"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_second_one_ends_at_once_with_what_must_be_done(number):
    act = "with stopping.done_at_a_stop(lambda: print('undone', flush=True)): time.sleep(60)"
    process = started(TRAINS.format(then=act))
    process.send_signal(signal.SIGUSR1)
    assert process.stdout is not None and process.stdout.readline() == f"asked {signal.SIGUSR1}\n"
    time.sleep(0.5)  # `timeout` sends its own twice: one so close would be the same
    process.send_signal(number)
    code, out, err = ended(process)
    assert (code, out) == (128 + number, "undone\n")
    assert err.splitlines()[-1].startswith(f"{number.name} after SIGUSR1: ended at once")


def test_what_a_launcher_passes_on_besides_is_no_second_one():
    """The launcher says how long it waits, too."""
    environment = {"TORCHELASTIC_RUN_ID": "x", "TORCH_ELASTIC_SHUTDOWN_TIMEOUT": "90"}
    process = started(TRAINS.format(then="time.sleep(1); sys.exit(75)"), **environment)
    for _ in range(3):
        process.send_signal(signal.SIGINT)
        time.sleep(0.2)
    code, _, err = ended(process)
    assert code == 75 and "waits 90 s" in err


def test_waiting_in_c_it_is_ended_by_another_thread():
    process = started(WAITS_IN_C)
    process.send_signal(signal.SIGTERM)
    assert ended(process) == (143, "undone\n", "")


def test_what_was_to_be_ignored_is_unless_torchrun_passes_it_on():
    """nohup has SIGHUP ignored, torchrun hears it all the same and passes it on."""
    process = started(WAITS, signal.SIGHUP)
    process.send_signal(signal.SIGHUP)
    process.send_signal(signal.SIGTERM)
    assert ended(process)[0] == 143
    process = started(WAITS, signal.SIGHUP, TORCHELASTIC_RUN_ID="x")
    process.send_signal(signal.SIGHUP)
    assert ended(process)[0] == 128 + signal.SIGHUP


@pytest.mark.parametrize("launcher", ["accelerate", "shell"])
def test_the_end_of_a_launcher_is_a_request_and_that_of_a_shell_is_none(launcher, tmp_path):
    seen = tmp_path / "seen"
    child = START + (
        "import os, pathlib\nstopping.only_note()\nparent = os.getppid()\nprint('ready', flush=True)\n"
        "while os.getppid() == parent: time.sleep(0.01)\n"
        "for _ in range(200):\n    if stopping.asked(): break\n    time.sleep(0.01)\n"
        f"pathlib.Path({str(seen)!r}).write_text(str(stopping.asked()))\n"
    )
    parent = f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {child!r}]).wait()"
    environment = {"ACCELERATE_MIXED_PRECISION": "no"} if launcher == "accelerate" else {}
    process = subprocess.Popen(
        [sys.executable, "-c", parent], env=SHELL | environment, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None and process.stdout.readline() == "ready\n"
    process.kill()
    process.stdout.read()  # until the child has ended, which holds it too
    assert seen.read_text() == str(LAUNCHER_ENDED if launcher == "accelerate" else 0)


def test_a_worker_that_is_started_while_training_is_out_of_reach_of_the_group():
    """torchrun signals the whole group: a data loader's worker that ends leaves the step without rows."""
    fork = """
import os, signal
stopping.only_note()
print("ready", flush=True)
worker = os.fork()
if worker == 0:
    time.sleep(60)
while os.getpgid(worker) == os.getpgid(0):
    time.sleep(0.01)
os.killpg(0, signal.SIGTERM)
while not stopping.asked():
    time.sleep(0.01)
print(os.waitpid(worker, os.WNOHANG)[0])
os.kill(worker, signal.SIGTERM)  # as its data loader does
print(os.waitstatus_to_exitcode(os.waitpid(worker, 0)[1]))
sys.exit(75)
"""
    process = started("import os; os.setsid()\n" + fork)
    code, out, _ = ended(process)
    assert (code, out) == (75, "0\n-15\n")


def test_it_ends_where_python_would_forget_that_it_is_to_end():
    """What `__del__` raises is printed and forgotten."""
    body = "class Long:\n    def __del__(self):\n        print('ready', flush=True)\n        time.sleep(1)\n"
    process = started(body + "Long()\nwhile True: time.sleep(0.01)")
    process.send_signal(signal.SIGUSR1)
    code, out, err = ended(process)
    assert (code, err) == (128 + signal.SIGUSR1, "stopped by SIGUSR1\n")


def test_a_rank_whose_launcher_was_gone_before_it_could_look_ends():
    """It would wait half an hour for the store that the launcher keeps: nobody listens at that port."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    store = {"TORCHELASTIC_USE_AGENT_STORE": "True", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    process = started(WAITS, TORCHELASTIC_RUN_ID="x", WORLD_SIZE="2", **store)
    assert ended(process)[0] == 143
