"""Fine-tuning for OLMoE: SFT, then DPO or KTO, with the router's losses in the objective.

    from olmoe_ft import evaluate, load_recipe, plan, run

    recipe = load_recipe("recipes/tiny/sft.yaml", ["training.max_steps=10"])
    forecasts = plan(recipe)  # steps, memory, disk; loads no weights
    summaries = run(recipe)  # trains into runs/<name>/
    evaluation = evaluate("runs/tiny-sft", "data/skills/heldout.jsonl")  # its `scores` and `samples`

Importing this changes nothing in the process, and imports no library: each name is looked up at its first use. What the
commands set in the environment, `olmoe_ft.environment.set_up` does for other programs, before they import torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from olmoe_ft.evaluation.evaluate import evaluate
    from olmoe_ft.pipeline import run
    from olmoe_ft.planning.command import plan
    from olmoe_ft.recipe import load_recipe

__all__ = ["__version__", "evaluate", "load_recipe", "plan", "run"]
__version__ = "0.1.0"

_HOMES = {
    "evaluate": "olmoe_ft.evaluation.evaluate",
    "load_recipe": "olmoe_ft.recipe",
    "plan": "olmoe_ft.planning.command",
    "run": "olmoe_ft.pipeline",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
