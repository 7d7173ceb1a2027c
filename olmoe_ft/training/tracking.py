"""Where a run's records go: `metrics.jsonl` always, Weights & Biases by recipe. Rank 0 alone writes."""

import netrc
import os
import time
import uuid
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import numpy as np
import wandb
from transformers import TrainerCallback

from olmoe_ft.recipe import Recipe
from olmoe_ft.training.router.files import LoadMap
from olmoe_ft.training.run_directory import RunDirectory, to_json


def wandb_mode(setting: str) -> str:
    """Online, offline or off: `auto` is online where a key is found (environment or netrc), else offline."""
    if setting != "auto":
        return setting
    if mode := os.environ.get("WANDB_MODE"):
        return {"disabled": "off"}.get(mode, mode)
    return "online" if _has_key() else "offline"


def _has_key() -> bool:
    """Whether W&B has a key for its server. Looked up here, since `wandb.login` would ask the server about it."""
    if os.environ.get("WANDB_API_KEY"):
        return True
    host = urlparse(os.environ.get("WANDB_BASE_URL") or wandb.Settings().base_url).hostname or ""
    try:
        return netrc.netrc(os.environ.get("NETRC")).authenticators(host) is not None
    except (OSError, netrc.NetrcParseError):
        return False


class Tracking:
    """One record at a time, under the same names in both places."""

    def __init__(self, recipe: Recipe, run: RunDirectory) -> None:
        self.metrics_file = run.metrics
        self.wandb_run = None
        self.load_map: LoadMap | None = None
        self.next_picture = 0.0  # time.perf_counter() before which none is drawn
        mode = wandb_mode(recipe.tracking.wandb)
        if mode != "off":
            self.wandb_run = wandb.init(
                project=recipe.tracking.project,
                name=recipe.name,
                id=_wandb_id(run.path / "wandb_id"),
                resume="allow",
                mode="offline" if mode == "offline" else "online",
                settings=wandb.Settings(silent=mode == "offline"),
                dir=str(run.path),
                config=recipe.model_dump(mode="json"),
            )
            # records are drawn over the optimizer step; W&B's own counter would refuse the steps a resume repeats
            self.wandb_run.define_metric("*", step_metric="step")

    def record(self, step: int, values: dict[str, Any]) -> None:
        values = {"step": step, **values}
        with self.metrics_file.open("a", encoding="utf-8") as stream:
            stream.write(to_json(values) + "\n")
        if self.wandb_run is not None:
            values = {name: _for_wandb(value) for name, value in values.items()} | self._load_map(step, values)
            self.wandb_run.log(values)

    def _load_map(self, step: int, values: dict[str, Any]) -> dict[str, wandb.Image]:
        """The load of all layers as one picture, unless drawing would take more than 0.5% of the run's time."""
        loads = [values[name] for name in sorted(values) if name.startswith("router/load/")]
        start = time.perf_counter()
        if not loads or start < self.next_picture:
            return {}
        self.load_map = self.load_map or LoadMap(len(loads), len(loads[0]))
        picture = wandb.Image(self.load_map.pixels(np.array(loads), step))
        done = time.perf_counter()
        self.next_picture = done + 200 * (done - start)
        return {"router/load_map": picture}

    def stop(self, step: int, values: dict[str, Any]) -> None:
        """The last record of a run that cannot go on."""
        self.record(step, values)
        if self.wandb_run is not None:
            self.wandb_run.finish(exit_code=1)

    def finish(self, summary: dict[str, Any]) -> None:
        if self.wandb_run is not None:
            self.wandb_run.summary.update(summary)
            self.wandb_run.finish()


def abandon_tracking() -> None:
    """End a W&B run that fails, before its run directory may be removed."""
    if wandb.run is not None:
        wandb.finish(exit_code=1)


class TrackingCallback(TrainerCallback):
    """Passes every record of the trainer on."""

    def __init__(self, tracking: Tracking) -> None:
        self.tracking = tracking

    def on_log(self, args, state, control, logs=None, **kwargs):
        if state.is_world_process_zero:
            self.tracking.record(state.global_step, logs)


def _for_wandb(value: Any) -> Any:
    """A layer's load is one bar an expert."""
    if isinstance(value, list):
        return wandb.Histogram(np_histogram=(np.array(value), np.arange(len(value) + 1)))
    return value


def _wandb_id(file: Path) -> str:
    """The id of this run in W&B, made once: a resumed run goes on in the same one."""
    if not file.exists():
        file.write_text(uuid.uuid4().hex[:8])
    return file.read_text()
