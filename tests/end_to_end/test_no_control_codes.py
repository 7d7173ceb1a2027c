"""Names and rows with codes that steer a terminal, through whole commands: what comes out is text."""

import json
import logging
import os
import shutil
import sys

import pytest
from support import REPOSITORY
from support.launches import make_workspace, olmoe_ft

from olmoe_ft.cli import main
from olmoe_ft.ending import let_no_text_fail

CODES = "\x1b]0;title\x07\x1b[2J\x1b]52;c;aGk=\x07\x9b31m\u202e\u2066\u200b"
ODD = f"{CODES}[bold][link=evil]"
STEERING = set(CODES) - {character for character in CODES if character.isascii() and character.isprintable()}


def run(folder, *arguments: str) -> str:
    done = olmoe_ft(folder, *arguments)
    said = (done.stdout + done.stderr).replace("\x1b[A", "")  # a bar of tqdm's below another one goes up a line
    assert done.returncode == 0, said[-3000:]
    assert not STEERING & set(said), sorted(STEERING & set(said))
    return said


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    folder = make_workspace(tmp_path_factory.mktemp("planted"))
    turns = [{"role": "user", "content": ODD}, {"role": "assistant", "content": f"a {ODD}"}]
    rows = [{"messages": turns, ODD: "x"} for _ in range(30)] + [{"messages": [{"role": ODD, "content": "q"}]}]
    (folder / f"{ODD}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    question = {"messages": turns[:1], "answer": "a", "frames": {"bare": ["", ""], f"{ODD}": ["b", "c"]}, "skill": ODD}
    (folder / "questions.jsonl").write_text(json.dumps(question) + "\n")
    (folder / ODD).mkdir()
    shutil.copyfile(REPOSITORY / "configs/accelerate/cpu.yaml", folder / ODD / f"{ODD}.yaml")
    recipe = {
        "extends": "recipes/tiny/sft.yaml",
        "name": "planted",
        "data": {
            "train": [{"path": f"{ODD}.jsonl"}],
            "answers": {"path": "questions.jsonl", "max_new_tokens": 2},
            "malformed": "drop",
            "max_dropped": 1,
        },
        "training": {"max_steps": 1, "packing": False, "max_length": 512, "warmup_steps": 0},
        "tracking": {"wandb": "off"},
    }
    (folder / f"{ODD}-recipe.yaml").write_text(json.dumps(recipe))
    return folder


def test_what_is_read(planted):
    recipe = f"{ODD}-recipe.yaml"
    run(planted, "validate", recipe)
    said = run(planted, "plan", recipe, "--accelerate", f"{ODD}/{ODD}.yaml")
    assert "\\x1b]0;title" in said and "[bold]" in said


def test_a_job_that_is_printed(planted, monkeypatch, capsys):
    """To a terminal; a file gets it as SLURM is to read it."""
    monkeypatch.chdir(planted)
    for terminal in (True, False):
        monkeypatch.setattr(sys, "argv", ["olmoe-ft", "launch", "--slurm", "--dry-run", f"{ODD}-recipe.yaml"])
        monkeypatch.setattr(sys.stdout, "isatty", lambda: terminal)  # noqa: B023
        with pytest.raises(SystemExit) as end:
            main()
        said = capsys.readouterr().out
        assert end.value.code == 0 and "#SBATCH" in said and bool(STEERING & set(said)) is not terminal


def test_what_a_library_logs(monkeypatch, caplog):
    monkeypatch.setattr(logging, "_logRecordFactory", logging.LogRecord)
    let_no_text_fail()
    logging.getLogger("library").warning("method %s is not known", ODD)
    assert "\\x1b]0;title" in caplog.text and not STEERING & set(caplog.text)


@pytest.mark.parametrize(
    "arguments",
    [
        ("train", f"{ODD}.yaml"),
        ("train", "tiny/sft", f"model.tokenizer={json.dumps(ODD)}"),
        ("train", "tiny/sft", f"name={json.dumps(ODD)}"),
        ("train", "tiny/sft", f"training.optim={json.dumps(ODD)}"),
        ("train", "tiny/sft", f"data.train=[{{path: {json.dumps(ODD + '.jsonl')}}}]"),
        ("chat", ODD),
        ("merge", ODD, "--to", "there"),
        ("plan", "tiny/sft", "--accelerate", f"{ODD}.gone"),
    ],
    ids=lambda arguments: " ".join(arguments)[:9] + str(len(arguments[-1])),
)
def test_what_is_wrong(planted, arguments, monkeypatch, capfd):
    monkeypatch.chdir(planted)
    monkeypatch.setattr(sys, "argv", ["olmoe-ft", *arguments])
    with pytest.raises(SystemExit) as end:
        main()
    said = "".join(capfd.readouterr())
    assert end.value.code == 2 and "1b]0;title" in said
    assert not STEERING & set(said)


@pytest.mark.slow
def test_what_is_trained(planted):
    said = run(planted, "train", f"{ODD}-recipe.yaml")
    assert "exact match" in said and "[bold]" in said
    run(planted, "train", f"{ODD}-recipe.yaml")  # a finished run
    os.symlink(planted / "runs/planted", planted / "runs" / ODD)
    run(planted, "chat", f"runs/{ODD}", "--prompt", ODD, "--max-new-tokens", "2")
    run(planted, "merge", f"runs/{ODD}", "--to", f"{ODD}-merged")
