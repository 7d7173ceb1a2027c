"""What seeing the routing costs: the share of a run's training time that goes into statistics, drift and pictures.

    python benchmarks/routing_cost.py [--steps 200] [--logging-steps 1,5,20]

The default recipe runs with a clock around each of the functions that only serve to show the routing; on a CPU nothing
runs behind their back. The losses' own part, which trains the router, is not counted.
"""

import os
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import typer
from rich.console import Console
from rich.table import Table

from olmoe_ft import load_recipe, run
from olmoe_ft.environment import set_up

REPOSITORY = Path(__file__).parents[1]


def parts() -> dict[str, tuple[type, str]]:
    """What is clocked, class and method, by its name in the table. Imports torch."""
    from olmoe_ft.training.router.drift import RoutingDrift
    from olmoe_ft.training.router.window import LogWindow
    from olmoe_ft.training.tracking import Tracking

    return {
        "sums": (LogWindow, "add"),
        "statistics": (LogWindow, "metrics"),
        "drift": (RoutingDrift, "record_if_due"),
        "tracking": (Tracking, "record"),  # every metric's, heat map included
        "start, end": (RoutingDrift, "choices"),
    }


def clocked(function: Callable[..., Any], seconds: Counter, name: str) -> Callable[..., Any]:
    def call(*args: Any, **kwargs: Any) -> Any:
        start = time.perf_counter()
        try:
            return function(*args, **kwargs)
        finally:
            seconds[name] += time.perf_counter() - start

    return call


def main(steps: int = 200, logging_steps: str = "1,5,20") -> None:
    set_up()  # before torch is imported
    clocks = parts()
    table = Table(title=f"share of {steps} steps of recipes/tiny/sft.yaml, W&B offline")
    table.add_column("logging\nsteps", justify="right")
    for name in (*clocks, "all in\ntraining"):
        table.add_column(name, justify="right")
    for every in map(int, logging_steps.split(",")):
        seconds: Counter = Counter()
        for name, (owner, function) in clocks.items():
            setattr(owner, function, clocked(getattr(owner, function), seconds, name))
        recipe = load_recipe(
            "recipes/tiny/sft.yaml",
            [
                f"name=cost-{every}",
                f"training.max_steps={steps}",
                f"training.logging_steps={every}",
                "training.save_strategy='no'",
                "data.answers=null",
                "tracking.wandb=offline",
            ],
        )
        (summary,) = run(recipe)
        seconds["start, end"] -= seconds["drift"]  # `choices` runs inside it too
        whole = summary.train_seconds
        training = sum(seconds.values()) - seconds["start, end"]
        shares = [f"{seconds[name] / whole:.2%}" for name in clocks]
        table.add_row(str(every), *shares, f"{training / whole:.2%}")
    Console().print(table)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        for name in ("recipes", "configs", "data"):
            (Path(folder) / name).symlink_to(REPOSITORY / name)
        os.chdir(folder)
        typer.run(main)
