"""Drift, table and pictures of a run, recomputed from the saved models by transformers' own network."""

import json

import matplotlib.image
import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
import transformers
from matplotlib.figure import Figure
from safetensors.torch import load_file
from support.training_cases import Case

from olmoe_ft.recipe import load_recipe
from olmoe_ft.training.router import drift
from olmoe_ft.training.router.pictures import LoadMap, draw_load, routing_picture
from olmoe_ft.training.router.table import RoutingFiles, write_routing
from olmoe_ft.training.run_directory import RunDirectory
from olmoe_ft.training.tracking import TrackingCallback


class Records(TrackingCallback):
    """Writes metrics.jsonl as rank 0 does, without W&B."""

    def __init__(self, file):
        self.tracking = self
        self.file = file

    def record(self, step, values):
        with self.file.open("a") as stream:
            stream.write(json.dumps({"step": step, **values}) + "\n")


@pytest.fixture
def run(make_trainer, tmp_path, monkeypatch, request):
    """A run of a few steps in which the routers move; its probe is small enough to run at every step."""
    monkeypatch.setattr(drift, "COST", 10.0)
    monkeypatch.chdir(tmp_path)
    case = Case(**request.param)
    trainer = make_trainer(case, "training.max_steps=4", "training.learning_rate=0.02", "training.logging_steps=2")
    run = RunDirectory(load_recipe("recipe.yaml"))
    trainer.add_callback(Records(run.metrics))
    trainer.add_callback(RoutingFiles(run))
    trainer.train()
    trainer.save_model(str(run.final))
    write_routing(run)
    return run


def choices(folder, probe):
    """(layers, counted tokens, 2), by transformers' own network."""
    model = transformers.OlmoeForCausalLM.from_pretrained(folder, dtype="float32").eval()
    inputs = {name: probe[name] for name in ("input_ids", "attention_mask", "position_ids") if name in probe}
    with torch.no_grad():
        logits = model(**inputs, output_router_logits=True, use_cache=False).router_logits
    return torch.stack([layer[probe["counted"].flatten()].topk(2).indices for layer in logits])


RUNS = [{}, {"stage": "dpo"}, {"layout": "packed"}]


@pytest.mark.parametrize("run", RUNS, indirect=True, ids=["sft", "dpo", "packed"])
def test_drift_is_what_the_saved_models_say(run, tmp_path):
    probe = load_file(run.routing_probe)
    start, end = choices(tmp_path / "start", probe), choices(run.final, probe)
    assert torch.equal(probe["start"].long().sort(-1).values, start.sort(-1).values)
    assert torch.equal(probe["end"].long().sort(-1).values, end.sort(-1).values)
    by_hand = [
        np.mean([len(set(a.tolist()) & set(b.tolist())) / 2 for a, b in zip(*pair, strict=True)])
        for pair in zip(start, end, strict=True)
    ]
    record = [json.loads(line) for line in run.metrics.read_text().splitlines() if "drift" in line][-1]
    assert record["step"] == 4
    assert [record[f"router/drift_agreement/layer_{layer:02d}"] for layer in range(2)] == pytest.approx(by_hand)
    assert record["router/drift_agreement"] == pytest.approx(np.mean(by_hand))
    assert 0.2 < record["router/drift_agreement"] < 1  # the routers did move, and not everything changed


@pytest.mark.parametrize("run", RUNS[:1], indirect=True, ids=["sft"])
def test_table_and_picture(run):
    records = [json.loads(line) for line in run.metrics.read_text().splitlines()]
    rows = pq.read_table(run.routing_table).to_pylist()
    assert [(row["step"], row["layer"]) for row in rows] == [(2, 0), (2, 1), (4, 0), (4, 1)]
    for row in rows:
        record = next(record for record in records if record["step"] == row["step"])
        for name, value in row.items():
            if name not in ("step", "layer"):
                assert value == record[f"router/{name}/layer_{row['layer']:02d}"], name
        assert sum(row["load"]) == pytest.approx(1, abs=1e-4) and len(row["load"]) == 8
    picture = matplotlib.image.imread(run.routing_picture)
    assert picture.shape[1] > 1000 and picture.std() > 0.05


def test_the_heat_map_shows_every_load_over_the_balanced_one():
    """Shares of 4 experts times 4: 1 at balance, which is the middle of the colours."""
    load = np.array([[0.25, 0.25, 0.25, 0.25], [0.0, 0.5, 0.5, 0.0]])
    axes = Figure().subplots()
    image = draw_load(axes, load, "load")
    assert np.array_equal(image.get_array(), [[1, 1, 1, 1], [0, 2, 2, 0]])
    assert [float(image.norm(value)) for value in (0, 1, 4)] == [0, 0.5, 1]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("expert", "layer")


def test_the_picture_shows_the_probes_loads_without_any_record():
    """Two tokens of K = 1 on experts 0 and 1, then both on 3 of 4: over balance 2, 2, 0, 0 and 0, 0, 0, 4."""
    probe = {"start": np.array([[[0], [1]]]), "end": np.array([[[3], [3]]]), "experts": np.array(4)}
    before, after = (axes.images[0].get_array() for axes in routing_picture([], probe).axes[:2])
    assert np.array_equal(before, [[2, 2, 0, 0]]) and np.array_equal(after, [[0, 0, 0, 4]])


def test_one_heat_map_is_drawn_again_for_every_record():
    load_map = LoadMap(layers=2, experts=4)
    balanced, collapsed = np.full((2, 4), 0.25), np.array([[1.0, 0, 0, 0]] * 2)
    pictures = [load_map.pixels(load, step=7) for load in (balanced, collapsed, balanced)]
    assert np.array_equal(pictures[0], pictures[2]) and not np.array_equal(pictures[0], pictures[1])
