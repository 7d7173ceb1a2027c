"""Entries of the cache: named by content, whole or absent, made once."""

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from support.small_tokenizers import FOLDERS, small_tokenizer

from olmoe_ft.data import audit as audits
from olmoe_ft.data import cache
from olmoe_ft.data.audit import audit
from olmoe_ft.data.cache import Cache
from olmoe_ft.data.mixture import load_mixtures
from olmoe_ft.recipe import Recipe, RecipeError

ROWS = [
    {"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": " a", "name": "x"}], "id": 1},
    {"prompt": "\n\nHuman: q\n\nAssistant:", "completion": "a b  c\n", "ok": True},
    {"instruction": "do", "input": "this", "output": "é\u0301 <|endoftext|>", "history": [["1", "2"]]},
    {"text": "once upon a time"},
    {"prompt": "word " * 40, "completion": "far too long"},
    {"prompt": "nothing"},
]
PAIR = {"prompt": "q", "chosen": "\n\nyes", "rejected": " no"}
# What the version of the rows, and that of audits, makes of these rows. A change that alters this needs a new version,
# and then the new hash here.
VERSIONS = 3, 6
MADE = {"tiny": ("6ecd04e45ecac7ae", "6c4d49507775eb69"), "olmoe": ("82cb762073170791", "a9be797cd53abc93")}


@pytest.mark.parametrize("name", FOLDERS)
def test_a_version_is_raised_when_rows_or_audits_are_made_otherwise(name, write, monkeypatch, tmp_path):
    """All that is kept of rows in one hash, their audits in another."""
    monkeypatch.chdir(tmp_path)  # a place names the file as the recipe does
    write("rows.jsonl", ROWS), write("pairs.jsonl", [PAIR, PAIR | {"rejected": ""}])
    write("judged.jsonl", [PAIR, *({"prompt": "q", "completion": "a", "label": label} for label in (1, "false", None))])
    write("bench.jsonl", [{"question": "q"}])
    kept, audited = [], []
    for path, stage, more in (
        ("rows.jsonl", "sft", {}),
        ("rows.jsonl", "sft", {"learn": "last_answer", "turn_marks": "obey", "long_prompts": "keep_end"}),
        ("pairs.jsonl", "dpo", {"decontaminate_against": ["bench.jsonl"]}),
        ("judged.jsonl", "kto", {}),
    ):
        made = mixture_of(small_tokenizer(name), path, stage, more)
        rows = [{**row, "signature": row["signature"][:4]} for row in made.sources[0].rows]
        kept.append(json.dumps(rows, sort_keys=True))
        audited.append(json.dumps(audit(made, 32).as_dict(), sort_keys=True))
    digests = [hashlib.sha256("".join(texts).encode()).hexdigest()[:16] for texts in (kept, audited)]
    assert ((cache.VERSION, audits.VERSION), tuple(digests)) == (VERSIONS, MADE[name])


def mixture_of(tokenizer, path, stage, more):
    values = {
        "name": "x",
        "stage": stage,
        "model": {"path": "a/b"},
        "router": {"load_balancing_coef": 0, "z_loss_coef": 0, "train": "full"},
        "data": {"train": [{"path": path}], "malformed": "drop", "max_dropped": 1, "cache": "cache", **more},
    }
    return load_mixtures(Recipe.model_validate(values), 64, tokenizer)[0]


def test_an_entry_is_made_once(tmp_path):
    made = []

    def make(folder: Path) -> None:
        made.append(folder)
        (folder / "x").write_text("1")

    first, again = (Cache(tmp_path).entry("rows", ["a", 1], make) for _ in range(2))
    assert first == again and len(made) == 1 and (first / "x").read_text() == "1"
    assert Cache(tmp_path).entry("rows", ["a", 2], make) != first and len(made) == 2


def test_a_failed_entry_leaves_nothing(tmp_path):
    def fail(folder: Path) -> None:
        (folder / "half").write_text("1")
        raise RecipeError("no")

    with pytest.raises(RecipeError, match="no"):
        Cache(tmp_path).entry("rows", [], fail)
    assert not [path for path in tmp_path.iterdir() if path.suffix != ".lock"]


def test_what_a_killed_process_left_is_made_anew(tmp_path):
    path = Cache(tmp_path).entry("rows", [], lambda folder: (folder / "x").write_text("1") and None)
    os.rename(path, f"{path}.partial")
    (Path(f"{path}.partial") / "x").write_text("half")
    again = Cache(tmp_path).entry("rows", [], lambda folder: (folder / "y").write_text("2") and None)
    assert again == path and sorted(file.name for file in path.iterdir()) == ["files.json", "y"]


@pytest.mark.parametrize("damage", [lambda file: file.unlink(), lambda file: file.write_text("hal")])
def test_an_entry_that_has_lost_a_file_is_made_anew(tmp_path, damage):
    """As a cleaner of temporary folders leaves it, or a full disk."""
    made = []

    def make(folder: Path) -> None:
        made.append(folder)
        (folder / "x").write_text("whole")

    path = Cache(tmp_path).entry("rows", [], make)
    damage(path / "x")
    assert Cache(tmp_path).entry("rows", [], make) == path
    assert (path / "x").read_text() == "whole" and len(made) == 2


def test_a_folder_that_cannot_be_written_is_one_sentence(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RecipeError, match="prepared rows cannot be written there .*; set data.cache to a folder"):
        Cache(tmp_path / "file").entry("rows", [], lambda folder: None)


def test_another_process_waits_for_the_first_and_makes_nothing(tmp_path):
    """The second of a machine looks for the entry while the first makes it, a second long."""
    program = f"""
import os, time
from olmoe_ft.data.cache import Cache
made = []
def make(folder):
    time.sleep(1)
    made.append(1)
path = Cache({str(tmp_path)!r}).entry("rows", [], make)
print(len(made), path.is_dir())
"""
    second, first = (
        subprocess.Popen(
            [sys.executable, "-c", program], env={**os.environ, "LOCAL_RANK": rank}, stdout=subprocess.PIPE
        )
        for rank in ("1", "0")
    )
    assert (first.communicate()[0], second.communicate()[0]) == (b"1 True\n", b"0 True\n")


def test_the_rows_of_a_moved_file_are_not_prepared_again(write, mixture, monkeypatch, tmp_path):
    """By content, not by name or time; and each is told by the place where it lies now."""
    path = write("rows.jsonl", [*ROWS[:2], {"prompt": "x"}])
    settings = {"malformed": "drop", "max_dropped": 0.5}
    first = mixture([{"path": path}], **settings)
    moved = os.rename(path, tmp_path / "moved.jsonl") or str(tmp_path / "moved.jsonl")
    os.utime(moved, (1, 1))
    with monkeypatch.context() as patch:
        patch.setattr(Cache, "_make", None)  # would be an error if it were called
        again = mixture([{"path": moved}], **settings)
        with pytest.raises(TypeError):
            mixture([{"path": moved, "max_rows": 1}], **settings)
    assert again.sources[0].entry == first.sources[0].entry
    for found, file in ((first, path), (again, moved)):
        assert found.sources[0].first("malformed").startswith(f"{file}:3: found prompt")
        assert audit(found).sources[0].problems[0].places == [f"{file}:3"]


def test_weights_need_no_new_rows(write, mixture):
    path = write("rows.jsonl", ROWS[:2])
    one, other = (mixture([{"path": path, "repeat": count}]) for count in (1, 3))
    assert one.sources[0].entry == other.sources[0].entry and (len(one.rows), len(other.rows)) == (2, 6)


@pytest.mark.parametrize(
    "change",
    [
        {"max_length": 80},
        {"learn": "last_answer"},
        {"turn_marks": "obey"},
        {"questions": [["q"]]},
        {"malformed": "drop"},
    ],
)
def test_what_changes_a_row_is_another_entry(write, mixture, change):
    path = write("rows.jsonl", ROWS[:2])
    assert mixture([{"path": path}]).sources[0].entry != mixture([{"path": path}], **change).sources[0].entry


def test_an_audit_of_an_older_version_is_made_anew(write, mixture, monkeypatch):
    """As olmoe_ft 0.1 left it: without a histogram, under another key."""
    found = mixture([{"path": write("rows.jsonl", ROWS[:2])}])

    def older(folder: Path) -> None:
        values = audit(found, 512).as_dict()
        del values["sources"][0]["lengths"]
        (folder / "audit.json").write_text(json.dumps(values))

    names = [[found.sources[0].source.path], found.held_out.key_with_places]
    entry = found.cache.entry("audit", [found.key, names, 512, audits.LISTED_ROWS], older)
    assert sum(audit(found, 512).sources[0].lengths["counts"]) == 2
    assert entry.is_dir()


def test_the_audit_is_kept_with_the_rows(write, mixture, monkeypatch):
    found = mixture([{"path": write("rows.jsonl", ROWS[:2])}])
    first = audit(found, 512)
    monkeypatch.setattr("olmoe_ft.data.audit._audit", None)  # would be an error if it were called
    assert audit(found, 512) == first
