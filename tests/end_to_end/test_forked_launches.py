"""A process that the tests' fork server makes is what a new interpreter would be."""

import json
import os
import signal
import time

import pytest
from support.launches import ENVIRONMENT, Forked, run_python

PROGRAM = """
import json, os, signal, sys
print(json.dumps([sys.argv, os.getcwd(), os.environ.get("MINE"), os.environ.get("HOME"), __name__, sys.path[0]]))
print("to stderr", file=sys.stderr)
how = sys.argv[1]
if how == "raises": raise KeyError("a fault")
if how == "says": sys.exit("a sentence")
if how == "killed": os.kill(os.getpid(), signal.SIGKILL)
if how == "waits": signal.signal(signal.SIGTERM, lambda *heard: sys.exit(7)); open("ready", "w"); signal.pause()
sys.exit(int(how))
"""


@pytest.mark.parametrize("real", [False, True], ids=["forked", "new"])
@pytest.mark.parametrize(
    ("how", "code", "said"),
    [
        ("0", 0, "to stderr"),
        ("3", 3, "to stderr"),
        ("raises", 1, "KeyError: 'a fault'"),
        ("says", 1, "a sentence"),
        ("killed", -9, "to stderr"),
    ],
)
def test_arguments_environment_and_exit_code(tmp_path, how, code, said, real):
    (tmp_path / "program.py").write_text(PROGRAM)
    done = run_python(tmp_path, "-u", str(tmp_path / "program.py"), how, "b c", real=real, MINE="of this launch")
    assert done.returncode == code and done.stderr.splitlines()[-1] == said
    argv, directory, mine, home, name, path = json.loads(done.stdout)
    assert argv == [str(tmp_path / "program.py"), how, "b c"] and directory == path == str(tmp_path)
    assert (mine, home, name) == ("of this launch", os.environ.get("HOME"), "__main__")


def test_a_signal_is_heard(tmp_path):
    (tmp_path / "program.py").write_text(PROGRAM)
    with (tmp_path / "said").open("w") as said:
        process = Forked([str(tmp_path / "program.py"), "waits"], tmp_path, ENVIRONMENT, said, said)
        while not (tmp_path / "ready").exists():
            time.sleep(0.01)
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 7


def test_what_is_read_on_import_cannot_be_another(tmp_path):
    with pytest.raises(AssertionError, match="HF_HUB_OFFLINE is read on import"):
        run_python(tmp_path, "program.py", HF_HUB_OFFLINE="0")
