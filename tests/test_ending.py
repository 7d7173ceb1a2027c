"""What the command says when it ends, and its exit code."""

import errno
import io
import json
import sys

import pytest
from support.launches import run_python

from olmoe_ft.ending import exit_with_reason, let_no_text_fail, tell_launcher
from olmoe_ft.reasons import one_line
from olmoe_ft.recipe import RecipeError, RunError


def caused(error: Exception, cause: BaseException) -> Exception:
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "code", "sentence"),
    [
        (RecipeError(["a.yaml:1: no", "a.yaml:2: no"]), 2, "a.yaml:1: no\na.yaml:2: no"),
        (caused(RunError("lower it"), MemoryError()), 1, "lower it"),  # said where more was known about it
        (MemoryError(), 1, "out of memory (MemoryError); close other programs, or use a larger machine"),
        (
            caused(RuntimeError("while reading"), PermissionError(errno.EACCES, "", "/home/x")),
            2,
            "/home/x: Permission denied; change its permissions, or name another folder",
        ),
        (
            Exception("No space left on device (os error 28)"),  # of a library in Rust
            2,
            "No space left on device (os error 28); free some space on this disk, or name a folder on another one",
        ),
    ],
)
def test_one_sentence_and_its_exit_code(error, code, sentence, capsys, tmp_path, monkeypatch):
    """And the same in the file that torch's launcher reads."""
    monkeypatch.setenv("TORCHELASTIC_ERROR_FILE", str(tmp_path / "error.json"))
    with pytest.raises(SystemExit) as end:
        exit_with_reason(error)
    assert end.value.code == code
    assert capsys.readouterr().err == sentence + "\n"
    assert json.loads((tmp_path / "error.json").read_text())["message"] == sentence


def test_an_error_that_is_no_sentence_has_its_type():
    errors = [KeyError("x"), ValueError("no\n room"), MemoryError(), RuntimeError("")]
    assert [one_line(error) for error in errors] == ["KeyError: 'x'", "no room", "MemoryError", "RuntimeError"]


@pytest.mark.parametrize("error", [KeyError("x"), FileNotFoundError(errno.ENOENT, "", "x"), ValueError("x")])
def test_a_fault_of_the_program_keeps_its_traceback(error, capsys):
    exit_with_reason(error)
    assert capsys.readouterr().err == ""


def test_letters_that_the_terminal_lacks_are_shown_as_others(monkeypatch):
    stream = io.TextIOWrapper(io.BytesIO(), encoding="latin-1")
    monkeypatch.setattr(sys, "stdout", stream)
    monkeypatch.setattr(sys, "stderr", None)  # closed
    let_no_text_fail()
    print("é я")
    print("nowhere", file=sys.stderr)
    stream.flush()
    assert stream.buffer.getvalue() == "é ?\n".encode("latin-1")


COMMAND = """
import signal
from olmoe_ft import cli, ending, stopping
def main():
    stopping._Request.code = {request}
    exec(compile("def fails(error): raise error", {file!r}, "exec"), globals())
    fails({error})
cli.main = main
ending.program()
"""


@pytest.mark.parametrize(
    ("request_code", "file", "error", "code", "said"),
    [
        ("signal.SIGUSR1", "saving.py", "TypeError('a fault')", 1, "TypeError: a fault"),
        ("signal.SIGUSR1", "saving.py", "RuntimeError('a fault')", 1, "RuntimeError: a fault"),
        ("signal.SIGUSR1", "/torch/distributed/c10d.py", "RuntimeError('Connection closed by peer')", 138, ""),
        ("stopping.LAUNCHER_ENDED", "/torch/distributed/c10d.py", "RuntimeError('Connection closed by peer')", 143, ""),
        ("0", "/torch/distributed/c10d.py", "RuntimeError('Connection closed by peer')", 1, "RuntimeError: Connection"),
    ],
)
def test_a_fault_behind_a_request_to_stop_is_said(tmp_path, request_code, file, error, code, said):
    """Only a process that misses another one, which was asked as well and has left, says nothing."""
    command = COMMAND.format(request=request_code, file=file, error=error)
    (tmp_path / "program.py").write_text(command)
    done = run_python(tmp_path, "program.py", WORLD_SIZE="2", LOCAL_RANK="0", RANK="0")
    assert done.returncode == code
    assert said in done.stderr and bool(done.stderr) is bool(said)


def test_the_first_reason_is_the_launchers(tmp_path, monkeypatch):
    """What fails behind it fails because of it."""
    monkeypatch.setenv("TORCHELASTIC_ERROR_FILE", str(tmp_path / "error.json"))
    tell_launcher("rank 1 hangs")
    tell_launcher("Connection closed by peer")
    assert json.loads((tmp_path / "error.json").read_text())["message"] == "rank 1 hangs"
