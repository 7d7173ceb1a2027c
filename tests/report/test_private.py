"""Keys, host names and local paths are taken out of texts, and nothing else is."""

import json
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from olmoe_ft.report.hosts import of_list
from olmoe_ft.report.private import Private, private_here

PRIVATE = Private(
    keys=frozenset({"correct-horse-battery"}),
    hosts=frozenset({"gpu17", "gpu17.example.edu", "frontier", "train", "nid["}),
    folders=(("/work/project", ""), ("/home/alice", "~"), ("/disk/sft-1", "…/sft-1")),
    users=frozenset({"alice"}),
    paths=frozenset({"/mnt/My Drive/rows.jsonl"}),
    revisions=frozenset({"a" * 40}),
)
LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJ"
KEYS = [
    f"hf_{LETTERS}",
    "0123456789abcdef0123456789abcdef01234567",
    f"wandb_v1_{LETTERS}",
    f"ghp_{LETTERS}",
    f"github_pat_11{LETTERS}_0",
    "sk-proj-abc0123456789defghij",
    "sk-ant-api03-abcdefghijklmnop",
    "AKIAIOSFODNN7EXAMPLE",
    "xoxb-0123456789-abcdefghij",
    f"AIza{LETTERS[:35]}",
    "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2lnbmF0dXJl",
    "-----BEGIN RSA PRIVATE KEY-----\nMIIabc\n-----END RSA PRIVATE KEY-----",
    "correct-horse-battery",
]


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize(
    "around", ["{}", "see {}.", "key={}", '{{"x": "{}"}}', "https://example.org/?q={}", "a\n{}\nb"]
)
def test_keys_are_removed_from_both_kinds_of_text(key, around):
    for clean in (PRIVATE.field, PRIVATE.row):
        cleaned = clean(around.format(key))
        assert key not in cleaned and "[key removed]" in cleaned
    assert PRIVATE.has_key(around.format(key))


@pytest.mark.parametrize(
    ("text", "cleaned"),
    [
        ("WANDB_API_KEY=hunter22", "WANDB_API_KEY=[key removed]"),
        ('"hub_token": "hunter2"', '"hub_token": "[key removed]"'),
        ("hub_token: hunter22", "hub_token: [key removed]"),
        ("password: 'pass phrase'", "password: '[key removed]'"),
        ("--api-key hunter22 --to x", "--api-key [key removed] --to x"),
        ("Authorization: Bearer abcdefgh12345678", "Authorization: Bearer [key removed]"),
        ("https://alice:hunter2@example.org/x", "https://[key removed]@example.org/x"),
    ],
)
def test_what_follows_the_name_of_a_key_is_removed_from_fields(text, cleaned):
    assert PRIVATE.field(text) == cleaned


def test_in_a_row_only_what_looks_like_a_key_follows_such_a_name():
    assert PRIVATE.row("password: swordfish") == "password: swordfish"
    assert PRIVATE.row("my api_key = 9f8e7d6c5b4a3f2e") == "my api_key = [key removed]"


@pytest.mark.parametrize(
    ("text", "cleaned"),
    [
        ("/work/project/runs/x", "runs/x"),
        ("/work/project", "."),
        ("/work/project2/runs/x", "…/x"),
        ("/home/alice/rows.jsonl", "…/rows.jsonl"),
        ("/disk/sft-1/base", "…/sft-1/base"),
        ("in /mnt/My Drive/rows.jsonl:", "in …/rows.jsonl:"),
        ('"/srv/a folder/rows.jsonl"', '"…/rows.jsonl"'),
        ("path:/srv/data/rows.jsonl:12", "path:…/rows.jsonl:12"),
        ("C:\\Users\\alice\\my rows\\a.jsonl", "…/a.jsonl"),
        ("C:/Users/alice/a.jsonl", "…/a.jsonl"),
        ("\\\\server\\share\\rows\\a.jsonl", "…/a.jsonl"),
        ("file:///srv/data/rows.jsonl", "…/rows.jsonl"),
        ("~/data/rows.jsonl", "…/rows.jsonl"),
        ("../../alice/rows.jsonl", "…/rows.jsonl"),
        ("/scratch/alice", "…"),
        ("runs/alice/x", "runs/[user]/x"),
        ("/usr/bin/python -m olmoe_ft train recipes/tiny/sft.yaml", "…/python -m olmoe_ft train recipes/tiny/sft.yaml"),
        ("['/a/b/x', '/c/d/y']", "['…/x', '…/y']"),
    ],
)
def test_paths_to_elsewhere_keep_their_last_part(text, cleaned):
    assert PRIVATE.field(text) == cleaned


@pytest.mark.parametrize(
    ("text", "cleaned"),
    [
        ("on gpu17.example.edu:29500", "on [host]:29500"),
        ("gpu17 and nid00042", "[host] and [host]"),
        ("frontier has failed", "[host] has failed"),
        ("db.cluster.internal", "[host]"),
        ("tcp://train:29500, alice@train", "tcp://[host]:29500, [user]@[host]"),
        ("http://mybox:8080/x", "http://[host]:8080/x"),
        ("10.1.2.3:80, fe80::1ff:fe23:4567:890a", "[host]:80, [host]"),
    ],
)
def test_hosts_and_addresses_are_removed_from_fields(text, cleaned):
    assert PRIVATE.field(text) == cleaned


@pytest.mark.parametrize(
    "text",
    [
        "allenai/OLMoE-1B-7B-0924",
        "alice/my-model",
        "https://huggingface.co/datasets/allenai/tulu-3-sft-olmo-2-mixture",
        "eval/gsm8k/exact_match",
        "router/z_loss",
        "data.train.0.path",
        "train",
        "12,345 tokens/s",
        "2026-11-28T08:00:00Z",
        "12:34:56",
        "1/2 and/or n/a",
        "runs/tiny-sft/final",
        "eos_token: <|endoftext|>",
        "max_new_tokens: 40",
        "tokens: non_padding",
        "std::vector",
        "nvidia-cudnn-cu12==9.1.0.70",
        "http://localhost:8000/v1",
        "a" * 40,  # a revision that the run has recorded
        "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
        "gpu170",
    ],
)
def test_what_is_not_private_is_kept(text):
    assert PRIVATE.field(text) == text
    assert PRIVATE.row(text) == text


@pytest.mark.parametrize(
    "text",
    [
        "/usr/bin/python",
        "and/or 1/2",
        "https://example.org/a/b",
        "C:\\Windows\\System32",
        "~/notes/todo.txt",
        "10.0.0.1",
        "the frontier of science",
        "task-based sk-learn",
        "<div>/a/b</div>",
        "\\frac{a}{b}",
    ],
)
def test_rows_keep_what_is_only_like_something_private(text):
    assert PRIVATE.row(text) == text


def test_rows_lose_known_folders_and_hosts():
    assert PRIVATE.row("see /home/alice/x and /disk/sft-1/y on gpu17") == "see ~/x and …/sft-1/y on [host]"


PLAIN_WORDS = st.lists(st.from_regex(r"\A[a-z]{1,9}\Z").filter(lambda word: word not in PRIVATE.hosts), max_size=30)


@given(PLAIN_WORDS)
@settings(max_examples=200, deadline=None, derandomize=True)
def test_plain_words_are_never_changed(words):
    text = " ".join(words)
    assert PRIVATE.field(text) == text and PRIVATE.row(text) == text


PIECES = st.sampled_from(
    [
        *KEYS,
        *"/\\:=@.~ \n\"'",
        "//",
        "..",
        "password",
        "token",
        "gpu17",
        "alice",
        "C:",
        "file:",
        "/home/alice",
        "[host]",
    ]
)


@given(st.lists(st.one_of(PIECES, st.text(max_size=6)), max_size=12))
@settings(max_examples=400, deadline=None, derandomize=True)
def test_a_cleaned_text_stays_as_it_is(pieces):
    """Cleaning may have made new words meet, which a second cleaning reads in another way; no key is among them."""
    text = " ".join(pieces)
    for clean in (PRIVATE.field, PRIVATE.row):
        cleaned = clean(text)
        assert clean(cleaned) == cleaned
        assert not any(key in cleaned for key in KEYS)


@pytest.mark.parametrize(
    "text",
    ["a" * 200_000, "/a" * 100_000, "token=" * 30_000, "sk-" * 60_000, "eyJ-" * 50_000, "-" * 200_000, "1:" * 100_000],
)
def test_no_text_takes_longer_than_its_length(text):
    """What backtracks from every place of these would take minutes."""
    begun = time.perf_counter()
    PRIVATE.field(text)
    PRIVATE.row(text)
    assert time.perf_counter() - begun < 10


def test_names_of_a_slurm_list():
    assert of_list("gpu[01-04,07],login1") == ["gpu[", "login1"]


@pytest.fixture
def run(tmp_path, monkeypatch):
    """A run beside a home folder, both outside the working folder, on a node of a SLURM cluster."""
    run, home = tmp_path / "elsewhere" / "sft-1", tmp_path / "people" / "carol"
    (run / "wandb" / "run-1" / "files").mkdir(parents=True)
    home.mkdir(parents=True)
    (run / "recipe.yaml").write_text("model: {path: /srv/some models/base}\n")
    (run / "run.json").write_text(json.dumps({"launches": [{"git_revision": f"{'b' * 40}-dirty"}]}))
    (run / "lock").write_text(json.dumps({"host": "olddesk9"}))
    metadata = {"host": "cloudbox-3", "username": "carol2"}
    (run / "wandb" / "run-1" / "files" / "wandb-metadata.json").write_text(json.dumps(metadata))
    (home / ".netrc").write_text("machine api.wandb.ai\n  login user\n  password from-the-netrc-file\n")
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("NETRC", str(home / ".netrc"))
    monkeypatch.setenv("SLURM_JOB_NODELIST", "rack[1-8]")
    monkeypatch.setenv("MY_SERVICE_TOKEN", "from-the-environment")
    monkeypatch.setenv("TOKENIZERS_PARALLELISM", "truthfully")
    monkeypatch.setenv("HF_TOKEN", "of-the-hugging-face-hub")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.setenv("PWD", str(tmp_path / "work"))
    return run


def test_what_is_private_here_is_found(run):
    private, here = private_here([run]), Path.cwd()
    for text, cleaned in {
        "from-the-environment, from-the-netrc-file, of-the-hugging-face-hub": ", ".join(["[key removed]"] * 3),
        f"{here}/runs/x": "runs/x",
        f"{Path.home()}/x/y": "…/y",
        f"{run}/final": "…/sft-1/final",
        "/srv/some models/base": "…/base",
        "rack3 cloudbox-3 olddesk9": "[host] [host] [host]",
        "runs/carol/x runs/carol2/x": "runs/[user]/x runs/[user]/x",
        f"{'b' * 40}-dirty": f"{'b' * 40}-dirty",
        "c" * 40: "[key removed]",
        "truthfully": "truthfully",
    }.items():
        assert private.field(text) == cleaned
    assert private.row(f"{Path.home()}/x on rack3") == "~/x on [host]"
