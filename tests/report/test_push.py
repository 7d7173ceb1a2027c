"""`olmoe-ft push`: what it would send, what it refuses, and what then lies on the Hub, which is a server here."""

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from support.card_runs import HUB_BASE, make_run, write_weights
from support.hub_server import HubServer, hub_server
from support.launches import run_python
from support.servers import answering, closed

from olmoe_ft.checkpoints.manifest import write_manifest
from olmoe_ft.recipe import UserError
from olmoe_ft.report.card import write_card
from olmoe_ft.report.to_send import ToSend, collect

TOKEN = "hf_of_the_test"
KEY = "hf_abcdefghijklmnopqrstuvwxyzABCDEFGH"
SENT = ["README.md", "config.json", "model.safetensors", "report.html", "tokenizer.json"]


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return make_run(Path("runs/one"))


@pytest.fixture
def hub():
    with hub_server(TOKEN) as server:
        yield server


def names(sent: ToSend) -> list[str]:
    return sorted(file.name for file in sent.files)


def text_of(sent: ToSend, name: str) -> str:
    (text,) = (file.text for file in sent.files if file.name == name)
    assert text is not None
    return text


# ---- what is sent ----


def test_weights_card_and_page_are_sent_and_nothing_else(run):
    for name in (
        "training_args.bin",
        "optimizer.pt",
        "trainer_state.json",
        ".cache/x",
        "checkpoint-10/model.safetensors",
    ):
        (run / "final" / name).parent.mkdir(exist_ok=True)
        (run / "final" / name).write_text("x")
    (run / "final/manifest.json").unlink()
    for folder in ("base", "checkpoints/checkpoint-20", "wandb"):
        (run / folder).mkdir(parents=True)
        (run / folder / "model.safetensors").write_text("x")
    sent = collect("runs/one", "alice/one")
    assert names(sent) == SENT
    assert sorted(sent.left) == [
        ".cache/x", "checkpoint-10/model.safetensors", "optimizer.pt", "trainer_state.json", "training_args.bin",
    ]  # fmt: skip
    assert sent.checks == []
    assert sent.size == sum(file.size for file in sent.files) > (run / "final/model.safetensors").stat().st_size


def test_the_card_that_is_sent_names_the_repository(run):
    """The one beside the weights stays as it is: it is for whoever has the folder."""
    write_card(run)
    before = (run / "final/README.md").read_text()
    assert 'name = "alice/one"' in text_of(collect("runs/one", "alice/one"), "README.md")
    assert (run / "final/README.md").read_text() == before


def test_a_card_that_a_person_has_changed_is_sent_as_it_is(run):
    (run / "final/README.md").write_text("Mine.")
    assert text_of(collect("runs/one", "alice/one"), "README.md") == "Mine."


def test_the_base_of_an_adapter_is_named_as_on_the_hub(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    snapshot = f"/home/x/hub/models--{HUB_BASE.replace('/', '--')}/snapshots/{'0' * 40}"
    make_run(Path("runs/one"), adapter=True, base=snapshot)
    sent = collect("runs/one", "alice/one")
    assert json.loads(text_of(sent, "adapter_config.json")) == {
        "peft_type": "LORA", "task_type": "CAUSAL_LM", "base_model_name_or_path": HUB_BASE, "r": 16,
    }  # fmt: skip
    assert "/home/x" not in "".join(filter(None, (file.text for file in sent.files)))
    assert sent.checks == []


def test_an_adapter_on_a_local_base_is_refused_with_the_remedy(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make_run(Path("runs/first"))
    make_run(Path("runs/one"), adapter=True, base=str(tmp_path / "runs/first/final"))
    with pytest.raises(UserError, match="olmoe-ft merge runs/one --to DIR, then olmoe-ft push DIR owner/name"):
        collect("runs/one", "alice/one")


def test_a_merged_folder_is_sent_with_the_card_of_its_run(run):
    merged = Path("merged")
    merged.mkdir()
    write_weights(merged, adapter=False, base="")
    sent = collect("merged", "alice/one")
    assert names(sent) == ["config.json", "model.safetensors", "tokenizer.json"]
    assert sent.checks == ["there is no README.md, so the repository gets no model card"]
    write_card(run, merged)
    assert "README.md" in names(collect("merged", "alice/one"))


def test_a_missing_page_is_said(run):
    (run / "report.html").unlink()
    assert collect("runs/one", "alice/one").checks == [
        "there is no report.html; to send one, write it first: olmoe-ft report runs/one"
    ]


def test_names_of_folders_here_are_said(run):
    (run / "final/README.md").write_text(f"Trained in {os.getcwd()}/runs/one.")
    assert collect("runs/one", "alice/one").checks == ["README.md names a folder or a computer of yours"]


# ---- what is refused ----


@pytest.mark.parametrize("name", ["one", "a/b/c", "a--b/c", "alice/one.git", "alice/o e", "", "/one", "alice/"])
def test_names_that_are_no_repository_are_refused(run, name):
    with pytest.raises(UserError, match="allowed: owner/name"):
        collect("runs/one", name)


def break_weights(run: Path) -> None:
    (run / "final/model.safetensors").write_bytes(b"x")


def break_weights_without_manifest(run: Path) -> None:
    (run / "final/manifest.json").unlink()
    break_weights(run)


def put_key(name: str, text: str):
    def act(run: Path) -> None:
        (run / name).write_text(f"one\n{text}\n")
        if name != "final/README.md":
            write_manifest(run / "final")

    return act


@pytest.mark.parametrize(
    ("act", "said"),
    [
        (lambda run: (run / "summary.json").unlink(), "that run has not finished"),
        (lambda run: shutil.rmtree(run / "final"), "that run has not finished"),
        (break_weights, "the folder is damaged: model.safetensors has 1 bytes instead of"),
        (break_weights_without_manifest, "model.safetensors"),
        (put_key("final/README.md", KEY), "README.md, line 2: holds what looks like a key"),
        (put_key("final/tokenizer_config.json", f'{{"token": "{KEY}"}}'), "tokenizer_config.json, line 2"),
        (put_key("report.html", "api_key = 9f8e7d6c5b4a3f2e"), "report.html, line 2"),
        (put_key("final/notes.txt", "the-password-of-carol"), "notes.txt, line 2"),
    ],
)
def test_what_must_not_be_sent_is_refused(run, monkeypatch, act, said):
    monkeypatch.setenv("SERVICE_PASSWORD", "the-password-of-carol")
    act(run)
    with pytest.raises(UserError, match=re.escape(said)) as refused:
        collect("runs/one", "alice/one")
    for key in (KEY, "9f8e7d6c5b4a3f2e", "the-password-of-carol"):
        assert key not in str(refused.value)


@pytest.mark.parametrize(
    ("model", "said"),
    [
        ("runs/none", "does not exist"),
        ("alice/other", "there is no such folder"),
        ("runs/both", "is a pipeline; push one of its stages: runs/both/sft, runs/both/dpo"),
        ("runs/one/base", "is a part of a run and not its end"),
        ("runs/one/checkpoints/checkpoint-20", "is a part of a run and not its end"),
    ],
)
def test_what_is_no_end_of_a_run_is_refused(run, model, said):
    for time, stage in enumerate(("sft", "dpo"), 1):
        recipe = make_run(Path("runs/both") / stage) / "recipe.yaml"
        recipe.write_text(re.sub("^name: .*", f"name: both/{stage}", recipe.read_text(), flags=re.MULTILINE))
        os.utime(recipe, (time, time))
    for name in ("base", "checkpoints/checkpoint-20"):
        (run / name).mkdir(parents=True)
        write_weights(run / name, adapter=False, base="")
    with pytest.raises(UserError, match=re.escape(said)):
        collect(model, "alice/one")


# ---- the command, and the Hub ----


def push(hub: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """`olmoe-ft push runs/one alice/one …` against a server; git LFS in place of Xet, which is another server."""
    settings = {
        "HF_ENDPOINT": hub,
        "HF_TOKEN": TOKEN,
        "HF_HUB_OFFLINE": "0",
        "HF_HUB_DISABLE_XET": "1",
        "HF_HOME": "home",
    }
    words = ["-m", "olmoe_ft", "push", "runs/one", "alice/one", *arguments]
    return run_python(Path.cwd(), *words, real=True, **(settings | environment))


def test_a_dry_run_lists_all_and_asks_nobody(run, hub: HubServer):
    before = {file: file.read_bytes() for file in Path("runs").rglob("*") if file.is_file()}
    done = push(hub.url, "--dry-run", HF_TOKEN="")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("would send to alice/one (private), as 'Upload one with olmoe_ft':\n")
    for name in (*SENT, "in all"):
        assert re.search(rf"^  {re.escape(name)} +[\d,.]+ (bytes|KiB)", done.stdout, re.MULTILINE), done.stdout
    assert "shows rows of the training data and answers of the model" in done.stdout
    assert "not sent" not in done.stdout and hub.asked == []
    assert {file: file.read_bytes() for file in Path("runs").rglob("*") if file.is_file()} == before


def test_one_commit_holds_all_files(run, hub: HubServer):
    done = push(hub.url)
    assert done.returncode == 0, done.stderr
    repository = hub.repositories["alice/one"]
    assert repository.private and repository.messages == ["Upload one with olmoe_ft"]
    files = repository.branches["main"]
    assert sorted(files) == SENT
    for name in ("model.safetensors", "config.json", "tokenizer.json"):
        assert files[name] == (run / "final" / name).read_bytes()
    assert files["report.html"] == (run / "report.html").read_bytes()
    assert b'name = "alice/one"' in files["README.md"] and os.getcwd().encode() not in files["README.md"]
    assert f"sent: {hub.url}/alice/one/commit/0" in done.stdout


def test_branch_message_and_files_that_were_there(run, hub: HubServer):
    assert push(hub.url, "--public").returncode == 0
    repository = hub.repositories["alice/one"]
    assert not repository.private
    repository.branches["second"] = {"old.safetensors": b"", ".gitattributes": b""}
    done = push(hub.url, "--public", "--revision", "second", "--message", "Again")
    assert done.returncode == 0, done.stderr
    assert sorted(repository.branches["second"]) == [".gitattributes", *SENT[:3], "old.safetensors", *SENT[3:]]
    assert repository.messages == ["Upload one with olmoe_ft", "Again"]
    assert "also there, and left as it was: old.safetensors\n" in done.stdout


def test_a_repository_that_everybody_sees_needs_the_word(run, hub: HubServer):
    assert push(hub.url, "--public").returncode == 0
    done = push(hub.url)
    assert done.returncode == 2 and "everybody can see it; add --public" in done.stderr
    assert len(hub.repositories["alice/one"].messages) == 1


def test_a_server_that_fails_once_is_asked_again(run, hub: HubServer):
    hub.breaks.append("/info/lfs/objects/batch")
    assert push(hub.url).returncode == 0
    assert sum("/info/lfs/objects/batch" in one for one in hub.asked) == 2


@pytest.mark.parametrize(
    ("environment", "said"),
    [
        ({"HF_TOKEN": ""}, "found no token of the Hub; log in with `hf auth login`"),
        ({"HF_HUB_OFFLINE": "1"}, "nothing is sent, because HF_HUB_OFFLINE is set"),
        ({"HF_TOKEN": "hf_of_another"}, "the Hub refuses"),
    ],
)
def test_without_a_right_or_a_network_nothing_is_sent(run, hub: HubServer, environment, said):
    done = push(hub.url, **environment)
    assert done.returncode == 2, done.stderr
    assert said in done.stderr and "Traceback" not in done.stderr and len(done.stderr.strip().splitlines()) == 1
    assert not hub.repositories


def test_a_hub_that_does_not_answer_is_said_in_one_sentence(run):
    with closed() as nobody, answering(503) as down:
        for url in (nobody, down):
            done = push(url)
            assert done.returncode == 2
            assert re.fullmatch(
                r"alice/one: nothing is sent, because the Hub \(.*\) cannot be reached: .*\n", done.stderr
            )


def test_metadata_that_the_hub_refuses_is_said(run, hub: HubServer):
    (run / "final/README.md").write_text("---\nlicense: mine\n---\nMine.")
    hub.refused = True
    done = push(hub.url)
    assert done.returncode == 2, done.stderr
    assert "correct it" in done.stderr and hub.repositories["alice/one"].messages == []
