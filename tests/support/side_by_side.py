"""Runs written by hand that are compared with each other."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from safetensors.numpy import save_file

from olmoe_ft.evaluation.files import add
from olmoe_ft.evaluation.score import Evaluation, Sample, Score
from olmoe_ft.report.files.run_files import RunFiles, read_run

RECIPE: dict[str, Any] = {
    "stage": "sft",
    "data": {"train": [{"path": "rows.jsonl", "weight": 1.0}]},
    "router": {"load_balancing_coef": 0.01},
    "training": {"learning_rate": 1e-4, "max_steps": 20},
}


def run_of(
    folder: Path,
    losses: Sequence[float] = (2.0, 1.0),
    recipe: Mapping[str, Any] = RECIPE,
    launch: Mapping[str, Any] | None = None,
    evaluations: Sequence[Evaluation] = (),
    finished: bool = True,
    **metrics: Sequence[float],
) -> RunFiles:
    """Write a run directory with a record every ten steps, of 100 tokens a step and 50 tokens a second.

    Args:
        losses: of the records; `loss/task` is 0.1 less.
        metrics: others, by name with `__` for each slash.
    """
    folder.mkdir(parents=True)
    (folder / "recipe.yaml").write_text(yaml.safe_dump({"name": folder.name, **recipe}), encoding="utf-8")
    records = []
    for index, loss in enumerate(losses):
        step = 10 * (index + 1)
        record = {"step": step, "loss": loss, "loss/task": loss - 0.1, "num_tokens": 100.0 * step}
        record |= {"perf/tokens_per_second": 50.0}
        record |= {name.replace("__", "/"): values[index] for name, values in metrics.items()}
        records.append({name: "NaN" if value != value else value for name, value in record.items()})
    (folder / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    (folder / "run.json").write_text(json.dumps({"launches": [{"processes": 2, "device": "cuda", **(launch or {})}]}))
    if finished:
        summary = {"name": folder.name, "steps": 10 * len(losses), "train_loss": 1.0, "train_seconds": 1800.0}
        (folder / "summary.json").write_text(json.dumps(summary))
    for one in evaluations:
        add(folder, one)
    return read_run(folder)


def asked(
    samples: Sequence[Sample], step: int | None = 20, when: Any = "after", questions: str = "q", **others: Any
) -> Evaluation:
    """An evaluation whose scores are the means of its samples' metrics, by task.

    Args:
        others: `template` and `limit`; `higher`, by metric whether more is better; and more of its settings.
    """
    tasks = list(dict.fromkeys(one.task for one in samples))
    template, higher = others.pop("template", None), others.pop("higher", {})
    scores = []
    for task in tasks:
        ones = [one for one in samples if one.task == task]
        for metric in ones[0].metrics:
            values = [one.metrics[metric] for one in ones]
            mean, better = sum(values) / len(values), higher.get(metric)
            scores.append(Score(task, metric, mean, 0.125, len(values), 0, template, higher_is_better=better))
    settings = {
        "tasks": tasks,
        "questions": {task: f"{questions} {task}" for task in tasks},
        "limit": others.pop("limit", None),
        "template": template,
        "short_outputs": {},
        "cut_prompts": {},
        **others,
    }
    return Evaluation("runs/here", step, when, scores, list(samples), settings, 1.0, 8)


def write_probe(
    folder: Path, start: Sequence[int], end: Sequence[int] | None, experts: int = 4, tokens: int = 1
) -> None:
    """A probe of one layer and one choice a token.

    Args:
        start, end: the expert that each token chooses.
        tokens: the id of all tokens.
    """
    probe = {
        "input_ids": np.full((1, len(start)), tokens),
        "counted": np.ones((1, len(start)), bool),
        "experts": np.array(experts),
        "start": np.array(start, np.int16).reshape(1, -1, 1),
    }
    if end is not None:
        probe["end"] = np.array(end, np.int16).reshape(1, -1, 1)
    save_file(probe, folder / "routing_probe.safetensors")
