"""What is said, and how soon, where the Hub does not answer or has not what is asked for; the servers are local."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from support.launches import make_workspace
from support.servers import answering, closed, silent
from support.user_mistakes import SFT

FROM_HUB = ["train", SFT, "data.train=[{path: own/er}]"]  # found out before torch is imported
NOT_CACHED = (
    "own/er: there is no such file here and no such dataset in the cache, and the Hub {}; download it where there is "
    "a network"
)


def run(folder: Path, *arguments: str, **environment: str) -> tuple[int, list[str]]:
    """Exit code and lines on stderr of `olmoe-ft …` with an empty cache of its own."""
    kept = {name: value for name, value in os.environ.items() if name != "HF_HUB_OFFLINE"}
    environment = {**kept, "HF_HOME": str(folder / "cache"), "HF_HUB_ETAG_TIMEOUT": "2", **environment}
    command = [sys.executable, "-m", "olmoe_ft", *arguments]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=120)
    return done.returncode, done.stderr.splitlines()


@pytest.fixture
def workspace(tmp_path):
    return make_workspace(tmp_path)


@pytest.mark.parametrize(
    ("server", "reason"),
    [
        (closed(), "Connection refused"),
        (silent(), "no answer in 2 s"),
        (answering(500), "it answers with error 500"),
        (answering(503), "it answers with error 503"),
    ],
    ids=["a port that refuses", "no answer", "500", "503"],
)
def test_a_hub_without_answer_is_said_once_and_not_waited_for(workspace, server, reason):
    """Retries of huggingface_hub would print 11 lines, in 1 + 2 + 4 + 8 + 8 = 23 s for each file."""
    with server as url:
        code, lines = run(workspace, *FROM_HUB, HF_ENDPOINT=url)
    assert code == 2 and len(lines) == 2
    assert lines[0].startswith(f"the Hub ({url}) cannot be reached: ") and reason in lines[0]
    assert lines[0].endswith("; continuing with what is in the cache, as with HF_HUB_OFFLINE=1")
    assert NOT_CACHED.format("cannot be reached") in lines[1]


@pytest.mark.parametrize(
    ("server", "said"),
    [
        (
            answering(401, X_Error_Code="RepoNotFound"),
            "own/er: there is no such file here and no such dataset on the Hub",
        ),
        (answering(403, X_Error_Code="GatedRepo"), "own/er: the dataset is gated; ask for access at http://127"),
        (answering(404, X_Error_Code="RevisionNotFound"), "own/er: the dataset on the Hub has no such revision"),
        (answering(404), "answers, but not like the Hub (Client error '404 Not Found'"),
    ],
    ids=["no such name", "gated", "no such revision", "another server"],
)
def test_answers_of_the_hub_are_told_apart(workspace, server, said):
    with server as url:
        code, lines = run(workspace, *FROM_HUB, HF_ENDPOINT=url)
    assert code == 2 and len(lines) == 1 and said in lines[0]


def test_offline_by_choice_asks_nobody(workspace):
    with answering(500) as url:
        code, lines = run(workspace, *FROM_HUB, HF_ENDPOINT=url, HF_HUB_OFFLINE="1")
    assert code == 2 and len(lines) == 1
    assert NOT_CACHED.format("is not asked, because HF_HUB_OFFLINE is set") in lines[0]


def test_only_the_first_process_of_a_machine_says_so(workspace):
    with closed() as url:
        code, lines = run(workspace, *FROM_HUB, HF_ENDPOINT=url, LOCAL_RANK="1", RANK="1", WORLD_SIZE="2")
    # alone it says what it cannot have; in a launch it waits, and ends with the first process
    assert code == 2 and len(lines) == 1 and lines[0].startswith("own/er: there is no such file here")


def test_a_mistake_in_local_files_is_said_without_a_look_at_the_network(workspace):
    """The tokenizer's name is on a Hub that does not answer; the rows, which are looked at before it, are not there."""
    with silent() as url:
        overrides = ["data.train.0.path=gone.jsonl", "model.tokenizer=own/er"]
        code, lines = run(workspace, "train", SFT, *overrides, HF_ENDPOINT=url)
    assert code == 2 and len(lines) == 1 and "gone.jsonl: there is no such file" in lines[0]


def test_weights_that_are_not_in_the_cache_are_missed_before_anything_is_written(workspace):
    """The cache holds a model's configuration and tokenizer, as after a plan, and none of its weights."""
    snapshot = workspace / "cache/hub/models--own--er/snapshots/0123"
    shutil.copytree("data/skills/tokenizer", snapshot)
    config = json.loads(Path("configs/model/olmoe_tiny.json").read_text())
    (snapshot / "config.json").write_text(json.dumps(config | {"model_type": "olmoe"}))
    refs = workspace / "cache/hub/models--own--er/refs"
    refs.mkdir()
    (refs / "main").write_text("0123")
    overrides = ["model.path=own/er", "model.config=null", "model.tokenizer=null", "data.train.0.max_rows=8"]
    code, lines = run(workspace, "train", SFT, *overrides, "data.answers=null", HF_HUB_OFFLINE="1")
    assert code == 2 and not (workspace / "runs").exists()
    assert "own--er/snapshots/0123/model.safetensors is missing; fetch the checkpoint again" in lines[-1]
