"""`routing.parquet`, the per-layer records of a run as a table, and `routing.png` made of it."""

import json
import re
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from safetensors.numpy import load_file
from transformers import TrainerCallback

from olmoe_ft.training.files import write_whole
from olmoe_ft.training.router.pictures import routing_picture
from olmoe_ft.training.run_directory import RunDirectory

LAYER_METRIC = re.compile(r"router/(\w+)/layer_(\d+)")
COLUMNS = pa.schema(
    [
        ("step", pa.int64()),
        ("layer", pa.int64()),
        ("load", pa.list_(pa.float64())),  # one share an expert; they sum to 1
        ("entropy", pa.float64()),
        ("max_violation", pa.float64()),
        ("dead_experts", pa.int64()),
        ("drift_agreement", pa.float64()),  # null at steps where the probe did not run
    ]
)


class RoutingFiles(TrainerCallback):
    """Writes the table with every checkpoint. For the first process alone."""

    def __init__(self, run: RunDirectory) -> None:
        self.run = run

    def on_save(self, args, state, control, **kwargs):
        write_table(self.run.metrics, self.run.routing_table)


def write_routing(run: RunDirectory) -> None:
    """Table and picture of a finished run."""
    write_table(run.metrics, run.routing_table)
    figure = routing_picture(pq.read_table(run.routing_table).to_pylist(), load_file(run.routing_probe))
    write_whole(run.routing_picture, lambda partial: figure.savefig(partial, format="png", dpi=120))


def write_table(metrics: Path, table: Path) -> None:
    """`metrics.jsonl`'s per-layer metrics as a Parquet file, a row for each step and layer."""
    rows: dict[tuple[int, int], dict[str, Any]] = {}
    lines = metrics.read_text(encoding="utf-8").splitlines() if metrics.exists() else []  # nothing logged yet
    for line in lines:
        record = json.loads(line)
        for key, value in record.items():
            if match := LAYER_METRIC.fullmatch(key):
                place = (record["step"], int(match[2]))
                rows.setdefault(place, {"step": place[0], "layer": place[1]})[match[1]] = value
    content = pa.Table.from_pylist([rows[place] for place in sorted(rows)], schema=COLUMNS)
    write_whole(table, lambda partial: pq.write_table(content, partial))
