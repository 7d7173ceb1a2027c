"""What `make torture` decides: what it breaks, where a run stands, and whether two runs ended alike."""

import json
import random
from collections import Counter
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torture.compare import differences
from torture.configurations import ALL, SAVED, Configuration
from torture.damages import FILE_WAYS, STRAY, STRAYS, Damage, choose_damages, place_of
from torture.kills import HOW, LAUNCHER, ONE_RANK, choose_kills
from torture.table import lines
from torture.trial import Verdict, is_refusal
from torture.watch import MOMENTS, Watch

from olmoe_ft.checkpoints.manifest import write_manifest

ONE = Configuration("sft", "full", "one", "packing")
RUN = ONE.runs[0]


def make_run(workspace: Path) -> Path:
    """A run directory as one that has finished."""
    run = workspace / RUN
    (run / "final").mkdir(parents=True)
    save_file({"a": torch.arange(4.0), "b": torch.ones(2)}, run / "final/model.safetensors")
    (run / "final/README.md").write_text(f"trained in {random.random()} s")
    (run / "final/config.json").write_text(json.dumps({"base": str(run)}))
    write_manifest(run / "final")
    records = [{"step": 1, "loss": 2.0, "perf/mfu": random.random()}, {"step": 2, "loss": 1.0}]
    (run / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    (run / "summary.json").write_text(json.dumps({"steps": 2, "train_seconds": random.random()}))
    write_manifest(run)
    return run


@pytest.fixture
def runs(tmp_path) -> tuple[Path, Path]:
    """Two workspaces with the same run."""
    make_run(tmp_path / "found")
    make_run(tmp_path / "expected")
    return tmp_path / "found", tmp_path / "expected"


def test_runs_that_differ_in_times_and_places_alone_ended_alike(runs):
    assert list(differences(ONE, *runs)) == []


def test_weights_are_compared_bit_by_bit_whatever_their_order(runs):
    file = runs[0] / RUN / "final/model.safetensors"
    save_file({"b": torch.ones(2), "a": torch.arange(4.0)}, file, metadata={"format": "pt"})
    write_manifest(file.parent)
    write_manifest(runs[0] / RUN)
    assert list(differences(ONE, *runs)) == []
    save_file({"b": torch.ones(2), "a": torch.arange(4.0).nextafter(torch.tensor(9.0))}, file)
    write_manifest(file.parent)
    write_manifest(runs[0] / RUN)
    assert list(differences(ONE, *runs)) == [f"{RUN}/final/model.safetensors differs"]


@pytest.mark.parametrize(
    "file, text, said",
    [
        ("metrics.jsonl", '{"step": 1, "loss": 2.0}\n{"step": 2, "loss": 1.1}\n', "record 2 differs in loss"),
        ("metrics.jsonl", '{"step": 1, "loss": 2.0}\n', "records of the steps [1], not [1, 2]"),
        ("metrics.jsonl", "{", "metrics.jsonl: "),
        ("summary.json", '{"steps": 3}', "summary.json differs in steps"),
        ("summary.json", "[]", "summary.json: "),
    ],
)
def test_records_and_figures_are_compared(runs, file, text, said):
    (runs[0] / RUN / file).write_text(text)
    write_manifest(runs[0] / RUN)
    found = list(differences(ONE, *runs))
    assert len(found) == 1 and said in found[0]


def test_a_missing_file_and_a_manifest_that_disagrees_are_differences(runs):
    (runs[0] / RUN / "final/config.json").unlink()
    found = " ".join(differences(ONE, *runs))
    assert "final: other files: config.json" in found and "final: config.json is missing" in found


def test_kills_are_seeded_and_of_every_kind():
    kills = list(choose_kills(200, ALL, seed=3))
    assert kills == list(choose_kills(200, ALL, seed=3)) != list(choose_kills(200, ALL, seed=4))
    assert {kill.how for kill in kills} == {*HOW}
    assert {kill.moment.name for kill in kills} == {"at any time", *(moment.name for moment in MOMENTS)}
    assert {kill.configuration for kill in kills} == {*ALL}
    assert sum(kill.real for kill in kills) == 20
    for kill in kills:
        assert kill.moment.is_of(kill.configuration)
        assert kill.how != ONE_RANK or kill.configuration.processes == 2
        assert kill.how != LAUNCHER or kill.configuration.processes == 2 or kill.real


def stopped_run(workspace: Path) -> Path:
    for step in SAVED[:2]:
        folder = workspace / RUN / f"checkpoints/checkpoint-{step}"
        folder.mkdir(parents=True)
        for name in ("trainer_state.json", "optimizer.pt", "empty"):
            (folder / name).write_bytes(b"" if name == "empty" else b"content")
    (workspace / RUN / "metrics.jsonl").write_text("{}\n")
    return workspace


def test_damages_try_every_file_in_every_way(tmp_path):
    stopped, finished = stopped_run(tmp_path / "stopped"), tmp_path / "finished"
    make_run(finished)
    damages = list(choose_damages(300, {ONE: stopped}, {ONE: finished}, seed=0))
    assert damages == list(choose_damages(300, {ONE: stopped}, {ONE: finished}, seed=0))
    tried = Counter((damage.file.name, damage.way) for damage in damages)
    for name in ("optimizer.pt", "trainer_state.json", "metrics.jsonl", "model.safetensors"):
        assert {way for file, way in tried if file == name} == {*FILE_WAYS}
    assert {way for file, way in tried if file == "empty"} == {
        "deleted", "a folder in its place", "a link to nowhere in its place"
    }  # fmt: skip
    assert {file for file, way in tried if way == STRAY} == {*STRAYS}
    for damage in damages:  # what a run does not go on from need not be named
        assert damage.matters == (damage.finished or f"checkpoint-{SAVED[1]}" in damage.file.parts)


@pytest.mark.parametrize("way", FILE_WAYS)
def test_a_damage_changes_its_file(tmp_path, way):
    workspace = stopped_run(tmp_path / "run")
    file = RUN / "checkpoints/checkpoint-6/optimizer.pt"
    Damage(ONE, False, file, way, True, seed=1).do(workspace)
    path = workspace / file
    assert not path.is_file() or path.read_bytes() != b"content"


def test_where_a_run_stands(tmp_path):
    watch = Watch(tmp_path, ONE)
    run = tmp_path / RUN
    assert watch.has_passed("launched") and not watch.has_passed("step 1") and not watch.has_passed("final")
    run.mkdir(parents=True)
    with (run / "metrics.jsonl").open("w") as stream:
        for line in ('{"step": 1, "loss": 1.0}\n', '{"step": 3, "loss": 1.0}', "\n", '{"step": 3, "eval_loss": 1.0}\n'):
            seen = watch.has_passed("step 1"), watch.has_passed("step 3"), watch.has_passed("evaluated")
            stream.write(line)
            stream.flush()
    assert seen == (True, True, False) and watch.has_passed("evaluated") and not watch.has_passed("step 10")
    stopped_run(tmp_path / "other")
    other = Watch(tmp_path / "other", ONE)
    assert other.has_passed("checkpoint 6") and not other.has_passed("checkpoint 9")


def test_a_refusal_names_the_file_and_a_remedy_without_a_traceback():
    case = Damage(ONE, True, RUN / "final/model.safetensors", "emptied", True, seed=0)
    assert is_refusal("…\nruns/run/final is damaged: model.safetensors has 0 bytes; remove it", case)
    assert not is_refusal("runs/run/final is damaged: model.safetensors has 0 bytes", case)
    assert not is_refusal("something is damaged; remove it", case)
    assert not is_refusal("training cannot start: something about runs/run/final; change the name", case)
    assert not is_refusal("Traceback (most recent call last):\nmodel.safetensors is damaged; remove it", case)


def test_every_case_is_exact_refused_or_lost():
    kill = next(choose_kills(1, [ONE], seed=0))
    damage = Damage(ONE, False, RUN / "metrics.jsonl", "emptied", False, seed=0)
    verdicts = [Verdict(kill), Verdict(damage, refused="it is damaged"), Verdict(damage, faults=["hangs"])]
    cells = {line.kind: line.cells()[2:] for line in lines(verdicts)}
    assert cells["kills"] == ("1", "1", "0", "0") and cells["damages"] == ("2", "0", "1", "1")
    assert cells["metrics.jsonl"] == cells["emptied"] == ("2", "0", "1", "1")
    assert cells["sft full one"] == ("3", "1", "1", "1")


def test_the_place_of_a_file():
    pipeline = Configuration("pipeline", "full", "one", "")
    assert place_of(Path("runs/run/sft/final/config.json"), pipeline) == "a file in final/ of an earlier stage"
    assert place_of(Path("runs/run/dpo/checkpoints/checkpoint-3/x/y.pt"), pipeline) == "a file of a checkpoint"
    assert place_of(RUN / "checkpoints/checkpoint-99", ONE) == "a file or folder beside the checkpoints"
    assert place_of(RUN / "run.json", ONE) == "run.json"
