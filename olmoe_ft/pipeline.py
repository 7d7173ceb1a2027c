"""The stages of a recipe, in order."""

import os
from typing import Any

from olmoe_ft.recipe import Recipe
from olmoe_ft.training.report import print_comparison
from olmoe_ft.training.stage import run_stage


def run(recipe: Recipe) -> list[dict[str, Any]]:
    """Run a recipe: its one stage, or every stage of a pipeline; returns their summaries."""
    summaries = [run_stage(stage) for stage in recipe.stages or (recipe,)]
    if recipe.stages and os.environ.get("RANK", "0") == "0":
        print_comparison(recipe.stages, summaries)
    return summaries
