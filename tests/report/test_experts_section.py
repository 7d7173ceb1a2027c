"""The expert atlas of run folders made by hand: 2 layers of 4 experts, of which each token takes one.

The probe is one row of 4 tokens and padding: 5, 5, 6, 7. In layer 0 they choose the experts 0, 0, 1, 2 before training
and 3, 3, 1, 2 after it; in layer 1 each another one, the same both times. So the loads of layer 0 are 2, 1, 1, 0 times
the balanced one before and 0, 1, 1, 2 after, and half of its choices agree.
"""

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from safetensors.numpy import load_file, save_file
from support.evaluations import evaluation, sample

from olmoe_ft.evaluation.files import add
from olmoe_ft.report.files.atlas import AFTER, BEFORE, PROBE, TRAINED, Atlas, Probe, atlas
from olmoe_ft.report.files.run_files import RunFiles, read_run
from olmoe_ft.report.page.blocks import Curves, HeatMaps, Prose, Table
from olmoe_ft.report.sections.experts import entropy, experts, favourites, max_violation

START = np.array([[[0], [0], [1], [2]], [[0], [1], [2], [3]]], dtype=np.int16)
END = np.array([[[3], [3], [1], [2]], [[0], [1], [2], [3]]], dtype=np.int16)
TEXTS = {5: " the", 6: "\n", 7: "\ufffd"}
# one source is all on expert 0 before; the other has 8 choices a layer, of which 6 are expert 3's in layer 0 at the end
SOURCES = {
    "sources_start": np.array([[[4, 0, 0, 0], [1, 1, 1, 1]], [[2, 2, 2, 2], [2, 2, 2, 2]]], dtype=np.int32),
    "sources_end": np.array([[[1, 1, 1, 1], [1, 1, 1, 1]], [[0, 1, 1, 6], [2, 2, 2, 2]]], dtype=np.int32),
}
EVEN = [[0.25] * 4] * 2


def write_probe(folder: Path, finished: bool = True, about: dict | None = None, **others: np.ndarray) -> None:
    tensors = {
        "input_ids": np.array([[5, 5, 6, 7, 0]]),
        "counted": np.array([[True, True, True, True, False]]),
        "start": START,
        "end": END,
        "experts": np.array(4),
        **SOURCES,
        **others,
    }
    kept = {name: np.array(value, order="C") for name, value in tensors.items() if finished or "end" not in name}
    about = {"texts": TEXTS, "sources": ["a.jsonl", "b.jsonl"]} if about is None else about
    metadata = {name: json.dumps(value) for name, value in about.items()}
    save_file(kept, folder / "routing_probe.safetensors", metadata=metadata)


@pytest.fixture
def folder(tmp_path) -> Path:
    """A run that has finished: drift at steps 2 and 4, and the benchmark `sums` before and after."""
    (tmp_path / "recipe.yaml").write_text("name: here\nstage: sft\n")
    records = [
        {"step": step, "router/drift_agreement/layer_00": layer, "router/drift_agreement/layer_01": 1.0}
        for step, layer in ((2, 0.75), (4, 0.5))
    ]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    (tmp_path / "summary.json").write_text('{"steps": 4}')
    write_probe(tmp_path)
    add(tmp_path, replace(evaluation("before", 0, [sample(0)]), loads={"sums": EVEN}))
    add(tmp_path, replace(evaluation("after", 4, [sample(0)]), loads={"sums": [[0.0, 0.0, 0.0, 1.0], [0.25] * 4]}))
    return tmp_path


def of(folder: Path) -> tuple[RunFiles, Atlas]:
    run = read_run(folder)
    found = atlas(run)
    assert found is not None
    return run, found


def blocks(folder: Path, kind: type) -> list:
    section = experts(read_run(folder))
    assert section is not None and section.id == "experts"
    return [block for block in section.blocks if isinstance(block, kind)]


def test_loads_of_the_probe_the_sources_and_the_benchmarks(folder):
    run, found = of(folder)
    assert run.unreadable == [] and (found.shape, found.per_token) == ((2, 4), 1)
    assert [*found.loads] == [PROBE, "a.jsonl", "b.jsonl", "benchmark sums"]
    expected = {
        (PROBE, BEFORE): [[2, 1, 1, 0], [1, 1, 1, 1]],
        (PROBE, AFTER): [[0, 1, 1, 2], [1, 1, 1, 1]],
        ("a.jsonl", BEFORE): [[4, 0, 0, 0], [1, 1, 1, 1]],
        ("b.jsonl", AFTER): [[0, 0.5, 0.5, 3], [1, 1, 1, 1]],
        ("benchmark sums", BEFORE): [[1, 1, 1, 1], [1, 1, 1, 1]],
        ("benchmark sums", AFTER): [[0, 0, 0, 4], [1, 1, 1, 1]],
    }
    for (subject, when), load in expected.items():
        assert found.load(subject, when).tolist() == load
    assert found.load("no such", BEFORE) is None and found.load(PROBE, "step 4") is None
    assert found.probe.agreement.tolist() == [0.5, 1.0]


def test_choices_agree_in_any_order():
    """Of the pairs 0 1 -> 1 0 and 0 1 -> 2 1: all and half, so three quarters."""
    probe = np.array([[[0, 1], [0, 1]]]), np.array([[[1, 0], [2, 1]]])
    found = Probe(np.array([1, 2]), 1, {}, dict(zip((BEFORE, AFTER), probe, strict=True)))
    assert found.agreement.tolist() == [0.75]


def test_entropy_and_violation_by_hand():
    """ln 4 where four are even; -0.5 ln 0.5 - 2 · 0.25 ln 0.25 = 1.5 ln 2; 0 where one has all, 4 times the mean."""
    load = np.array([[0.25] * 4, [0.5, 0.25, 0.25, 0.0], [0.0, 1.0, 0.0, 0.0]])
    assert entropy(load).tolist() == pytest.approx([math.log(4), 1.5 * math.log(2), 0.0])
    assert max_violation(load).tolist() == [0.0, 1.0, 3.0]


def test_maps_show_before_after_and_the_difference(folder):
    [maps] = blocks(folder, HeatMaps)
    assert [(one.subject, one.kind) for one in maps.maps] == [
        (subject, kind)
        for subject in (PROBE, "a.jsonl", "b.jsonl", "benchmark sums")
        for kind in (BEFORE, AFTER, "difference")
    ]
    assert [one.values for one in maps.maps[:3]] == [
        [[2, 1, 1, 0], [1, 1, 1, 1]],
        [[0, 1, 1, 2], [1, 1, 1, 1]],
        [[-2, 0, 0, 2], [0, 0, 0, 0]],
    ]
    assert [one.difference for one in maps.maps[:3]] == [False, False, True]


def test_drift_starts_at_one_beside_unrelated_routers(folder):
    """One of four experts: routers that know nothing of each other agree on a quarter."""
    [drift] = blocks(folder, Curves)
    assert [(one.name, one.x, one.y) for one in drift.series] == [
        ("layer 0", [0, 2, 4], [1, 0.75, 0.5]),
        ("layer 1", [0, 2, 4], [1, 1, 1]),
        ("unrelated routers", [0, 4], [0.25, 0.25]),
    ]
    assert [one.dashed for one in drift.series] == [False, False, True]


def test_the_table_of_layers(folder):
    """1.5 ln 2 = 1.040, ln 4 = 1.386; the busiest has twice the mean; one expert is idle both times."""
    table = blocks(folder, Table)[0]
    assert [column.name for column in table.columns] == [
        "layer", "entropy before", "entropy after", "max violation before", "max violation after",
        "idle experts before", "idle experts after", "same choices",
    ]  # fmt: skip
    assert table.rows == [
        ["0", "1.040", "1.040", "1.00", "1.00", "1", "1", "50.0%"],
        ["1", "1.386", "1.386", "0.00", "0.00", "0", "0", "100.0%"],
    ]


def test_the_experts_that_changed_most_with_their_tokens_and_whom_they_serve(folder):
    """Experts 0 and 3 of layer 0 change by 2. Both tokens " the" go from the one to the other. At the end expert 0 has
    the balanced load in a.jsonl, 0 elsewhere; expert 3 has 4 times it in the benchmark, 3 times in b.jsonl."""
    table = blocks(folder, Table)[1]
    assert len(table.rows) == 8  # there are no ten
    first, second = table.rows[:2]
    assert first[:-1] == ["layer 0 expert 0", "2.00", "0.00", "-2.00", "␣the ×2/2", "none clearly"]
    assert second[:-1] == ["layer 0 expert 3", "0.00", "2.00", "+2.00", "none clearly", "␣the ×2/2"]
    assert (first[-1].text, first[-1].note) == ("a.jsonl", "1.00 x")
    assert (second[-1].text, second[-1].note) == ("benchmark sums", "4.00 x")


def test_tokens_are_visible_and_the_clearest_come_first(folder):
    """In layer 1 expert 0 has one of two " the", one more than the half that an even router would give it, and experts
    2 and 3 have the line end and the part of a character."""
    _, found = of(folder)
    assert [favourites(found.probe, BEFORE, 1, expert, 4) for expert in range(4)] == [
        "␣the ×1/2", "␣the ×1/2", "↵ ×1/1", "token 7 ×1/1",
    ]  # fmt: skip
    tokens = np.array([1] * 8 + [2] * 4 + [3])
    choices = np.array([[0]] * 4 + [[1]] * 4 + [[0]] * 4 + [[0]])[None]
    probe = replace(found.probe, tokens=tokens, choices={BEFORE: choices}, texts={1: "a" * 30, 2: "\t", 3: ""})
    # 4 of 4 is 3 above a quarter, 4 of 8 is 2 above it, 1 of 1 is 0.75 above it
    assert favourites(probe, BEFORE, 0, 0, 4) == f"⇥ ×4/4 · {'a' * 20}… ×4/8 · token 3 ×1/1"
    # with two experts every other choice is even: 4 of 8 is none too many
    assert favourites(probe, BEFORE, 0, 1, 2) == "none clearly"


def test_a_run_without_an_end_shows_its_start_and_its_last_records(folder):
    """The newest step of the table is 20; its loads are shown as they are."""
    write_probe(folder, finished=False)
    (folder / "summary.json").unlink()
    evaluations = json.loads((folder / "evaluation.json").read_text())
    evaluations["evaluations"] = evaluations["evaluations"][:1]
    (folder / "evaluation.json").write_text(json.dumps(evaluations))
    load = [[0.25] * 4, [0.5, 0.5, 0.0, 0.0]]
    rows = [{"step": step, "layer": layer, "load": load[layer]} for step in (10, 20) for layer in (1, 0)]
    pq.write_table(pa.Table.from_pylist(rows), folder / "routing.parquet")
    [maps] = blocks(folder, HeatMaps)
    assert [(one.subject, one.kind) for one in maps.maps] == [
        (PROBE, BEFORE), ("a.jsonl", BEFORE), ("b.jsonl", BEFORE), ("benchmark sums", BEFORE), (TRAINED, "step 20"),
    ]  # fmt: skip
    assert maps.maps[-1].values == [[1, 1, 1, 1], [2, 2, 0, 0]]
    [said], [layers] = blocks(folder, Prose), blocks(folder, Table)
    assert "has not come to its end" in said.text and "at step 20" in said.text
    assert [column.name for column in layers.columns] == [
        "layer", "entropy before", "max violation before", "idle experts before",
    ]  # fmt: skip
    (folder / "routing.parquet").write_bytes(b"PAR1 cut off")
    run, found = of(folder)
    assert TRAINED not in found.loads and run.unreadable == [f"{folder / 'routing.parquet'} cannot be read"]


def test_runs_of_older_versions_have_no_sources_and_no_texts(folder):
    write_probe(folder, about={})
    _, found = of(folder)
    assert [*found.loads] == [PROBE, "benchmark sums"]
    assert blocks(folder, Table)[1].rows[0][4] == "token 5 ×2/2"
    (folder / "evaluation.json").unlink()
    assert blocks(folder, Table)[1].rows[0][-1] == "not known"


@pytest.mark.parametrize(
    "damage",
    ["cut off", "no start", "other tokens", "no tokens", "texts that are none", "other experts", "many experts"],
)
def test_a_damaged_probe_is_named_and_left_out(folder, damage):
    file = folder / "routing_probe.safetensors"
    if damage == "cut off":
        file.write_bytes(file.read_bytes()[:200])
    elif damage == "no start":
        save_file({name: one for name, one in load_file(file).items() if name != "start"}, file)
    elif damage == "other tokens":
        write_probe(folder, counted=np.array([[True, True, True, False, False]]))
    elif damage == "no tokens":
        write_probe(folder, counted=np.zeros((1, 5), dtype=bool), start=START[:, :0], end=END[:, :0])
    elif damage == "texts that are none":
        write_probe(folder, about={"texts": ["a"]})
    else:
        write_probe(folder, experts=np.array(3 if damage == "other experts" else 2**60))
    run = read_run(folder)
    assert experts(run) is None and experts(run) is None
    assert run.unreadable == [f"{file} cannot be read"]


def test_loads_of_another_network_are_named_and_left_out(folder):
    add(folder, replace(evaluation("after", 4, [sample(0)]), loads={"sums": [[0.5, 0.5]], "odd": [[1.0], []]}))
    run, found = of(folder)
    assert found.load("benchmark sums", AFTER) is None and found.load("benchmark sums", BEFORE) is not None
    assert len(run.unreadable) == 2 and "the loads of sums are not of this network" in run.unreadable[0]


def test_a_run_without_a_probe_has_no_section(folder):
    (folder / "routing_probe.safetensors").unlink()
    run = read_run(folder)
    assert experts(run) is None and run.unreadable == []
