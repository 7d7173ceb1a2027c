"""The tables of a model card: training, data, scores, routers, versions. Each is "" where a run has nothing of it."""

import math
import os
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from olmoe_ft.evaluation.score import Score
from olmoe_ft.evaluation.table import shown_value
from olmoe_ft.report.amounts import duration
from olmoe_ft.report.card.markdown import Markdown
from olmoe_ft.report.card.origin import is_hub_name
from olmoe_ft.report.files.evaluated import Time
from olmoe_ft.report.files.run_files import RunFiles
from olmoe_ft.shipped import is_shipped_name

ROUTERS = {
    "router/entropy": "entropy of the experts' probabilities (nats)",
    "router/max_violation": "busiest expert over the mean, minus 1",
    "router/dead_experts": "experts without a token",
    "router/load_balancing_loss": "load balancing loss (1 is balanced)",
    "router/z_loss": "z-loss",
}
DRIFT = "router/drift_agreement"
LOSSES = ("loss/task", "loss")


def objects(value: Any) -> list[Mapping[str, Any]]:
    """The objects of a list in a file, which may hold anything."""
    return [item for item in value if isinstance(item, Mapping)] if isinstance(value, list) else []


def section(recipe: Mapping[str, Any], *names: str) -> Mapping[str, Any]:
    """A section of a recipe that may lack it."""
    value: Any = recipe
    for name in names:
        value = value.get(name) if isinstance(value, Mapping) else None
    return value if isinstance(value, Mapping) else {}


def number(value: Any, digits: int = 4) -> str:
    """A number for people; a dash for what is none, as in a damaged file."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return "-"
    if isinstance(value, float) and not (value.is_integer() and abs(value) < 1e15):
        return f"{value:.{digits}g}"
    return f"{int(value):,}"


# ---- training ----


def training(run: RunFiles, md: Markdown) -> str:
    """Steps, tokens, time, machine."""
    rows = [[md.plain(name), md.plain(text)] for name, text in _facts(run)]
    return md.table(["", ""], rows)


def _facts(run: RunFiles) -> Iterator[tuple[str, str]]:
    summary, metrics, launch = run.summary or {}, run.metrics, run.launch
    steps = summary.get("steps", metrics.last_step)
    yield "optimizer steps", number(steps)
    if (epochs := metrics.last("epoch")) is not None:
        yield "epochs", number(epochs, 3)
    if (tokens := metrics.last("num_tokens")) is not None:
        yield "tokens", number(tokens)
    for name in LOSSES:
        if name in metrics:
            first, last = metrics[name].values[[0, -1]]
            yield "loss of the task" if name != "loss" else "loss", f"{number(first)} at first, {number(last)} at last"
            break
    if (seconds := _seconds(run)) is not None:
        yield "time", duration(seconds)
    if launch:
        yield "processes", number(launch.get("processes", 1))
        devices = section(launch, "machine").get("devices")
        names = dict.fromkeys(map(str, devices)) if isinstance(devices, list) else {}
        yield "device", ", ".join(names) or str(launch.get("device", ""))
        if engine := launch.get("engine"):
            yield "engine", str(engine)
        for name, kind in section(launch, "precision").items():
            yield f"precision of the {name}", str(kind)


def _seconds(run: RunFiles) -> float | None:
    """Of all launches together; None where one of them was killed and has left no end."""
    ended = [section(launch, "ended").get("seconds") for launch in run.launches]
    known = [float(one) for one in ended if isinstance(one, int | float)]
    if known and len(known) == len(ended):
        return sum(known)
    seconds = (run.summary or {}).get("train_seconds")
    return float(seconds) if len(run.launches) == 1 and isinstance(seconds, int | float) else None


def hyperparameters(run: RunFiles, md: Markdown) -> str:
    """What the recipe sets of the trainer, the routers and the adapters."""
    rows = [
        [md.code(f"{name}.{key}"), md.code(_value(value))]
        for name in ("training", "router", "lora")
        for key, value in section(run.recipe, name).items()
    ]
    return md.table(["key", "value"], rows)


def _value(value: Any) -> str:
    """As a recipe has it: `true`, `null`, `[a, b]`."""
    text = yaml.safe_dump(value, default_flow_style=True, sort_keys=False, allow_unicode=True, width=10**6)
    return text.removesuffix("...\n").strip()


# ---- data ----


def data(run: RunFiles, md: Markdown) -> str:
    """The sources, with their numbers and licences."""
    recipe = {str(one.get("path")): one for one in objects(section(run.recipe, "data").get("train"))}
    reported = {str(one.get("path")): one for one in objects((run.data_report or {}).get("sources"))}
    rows = [
        [
            _source(path, md),
            _license(path, md),
            number(source.get("rows")),
            number(source.get("drawn")),
            number(source.get("tokens")),
            number(source.get("supervised_tokens")),
        ]
        for path, source in (reported or recipe).items()
    ]
    return md.table(["source", "licence", "rows", "used in an epoch", "tokens", "of them learned"], rows, numbers=4)


def datasets(run: RunFiles) -> list[str]:
    """The sources that are datasets on the Hub."""
    paths = [str(one.get("path")) for one in objects(section(run.recipe, "data").get("train"))]
    return [path for path in dict.fromkeys(paths) if _on_hub(path)]


def _on_hub(path: str) -> bool:
    return is_hub_name(path) and not os.path.exists(path)


def _source(path: str, md: Markdown) -> str:
    if _on_hub(path):
        return f"[{md.plain(path)}](https://huggingface.co/datasets/{path})"
    return md.code(Path(path).name)


def _license(path: str, md: Markdown) -> str:
    if is_shipped_name(path):
        return "Apache-2.0, comes with olmoe_ft"
    return "not known; look at the dataset's page" if _on_hub(path) else "not known; a local file"


def data_notes(run: RunFiles, md: Markdown) -> Iterator[str]:
    """What a reader should know of the rows: cut, dropped, held-out prompts among them."""
    for source in objects((run.data_report or {}).get("sources")):
        name, rows = _source(str(source.get("path")), md), source.get("rows")
        if cut := source.get("truncated_rows"):
            yield f"{number(cut)} of {number(rows)} rows of {name} did not fit into `training.max_length` and were cut."
        dropped = source.get("dropped")
        if isinstance(dropped, Mapping) and dropped:
            reasons = "; ".join(f"{number(count)} {md.plain(str(reason))}" for reason, count in dropped.items())
            yield f"Rows of {name} that were dropped: {reasons}."
        for group, overlap in section(source, "overlaps").items():
            if isinstance(overlap, Mapping) and overlap.get("kept"):
                yield f"{number(overlap['kept'])} rows of {name} contain questions of {md.code(Path(group).name)}."


# ---- scores ----


def scores(run: RunFiles, md: Markdown) -> str:
    """Headline scores before and after, with standard errors."""
    times: tuple[Time, ...] = ("before", "after")
    columns = {
        when: {(one.task, one.metric): one for one in found} for when in times if (found := run.evaluated.asked(when))
    }
    rows = []
    for task, metric in dict.fromkeys(key for scores in columns.values() for key in scores):
        both = [scores.get((task, metric)) for scores in columns.values()]
        counts = sorted({one.n for one in both if one is not None})
        about = [md.code(task), md.code(metric)]
        rows.append(
            [
                *about,
                " / ".join(number(count) for count in counts if count),
                *(shown_value(one) if one else "-" for one in both),
            ]
        )
        if any(one is not None and one.clean_n not in (None, one.n) for one in both):
            rows.append([md.code(task), "without questions in the training rows", "", *map(_clean, both)])
    names = {"before": "before training", "after": "after training"}
    return md.table(["task", "metric", "questions", *map(names.__getitem__, columns)], rows, numbers=1 + len(columns))


def _clean(score: Score | None) -> str:
    if score is None or score.clean_n is None or score.clean_value is None:
        return "-"
    return f"{shown_value(replace(score, value=score.clean_value, stderr=None))} of {score.clean_n:,}"


# ---- routers and versions ----


def routers(run: RunFiles, network: Mapping[str, Any], md: Markdown) -> str:
    """What the routers did in the first and in the last record."""
    experts = network.get("num_experts")
    rows = []
    for name, title in ROUTERS.items():
        if name not in run.metrics:
            continue
        if name == "router/entropy" and isinstance(experts, int) and experts > 0:
            title += f", at most {math.log(experts):.2f}"
        first, last = run.metrics[name].values[[0, -1]]
        rows.append([md.code(name), md.plain(title), number(float(first), 3), number(float(last), 3)])
    if (drift := run.metrics.last(DRIFT)) is not None:
        rows.append(
            [md.code(DRIFT), "choices of experts that are those of the start, on a fixed batch", "1", f"{drift:.3g}"]
        )
    return md.table(["metric", "what it is", "at first", "at last"], rows, numbers=2)


def versions(run: RunFiles, md: Markdown) -> str:
    """Python, libraries, and the commit of olmoe_ft."""
    found = {"python": run.launch.get("python"), **section(run.launch, "libraries")}
    texts = [f"{name} {version}" for name, version in found.items() if version]
    if revision := run.launch.get("git_revision"):
        commit, dash, dirty = str(revision).partition("-")
        texts.append(f"olmoe_ft at {commit[:12]}{dash}{dirty}")  # 40 digits would look like a key of W&B
    return ", ".join(map(md.plain, texts))
