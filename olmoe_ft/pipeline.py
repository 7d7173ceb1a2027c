"""The stages of a recipe, in order."""

import os
from typing import Any

from olmoe_ft.recipe import Recipe
from olmoe_ft.recipe.changes import GO_ON, Restart
from olmoe_ft.training.printed import print_comparison
from olmoe_ft.training.stage import run_stage


def run(recipe: Recipe, restart: Restart = GO_ON) -> list[dict[str, Any]]:
    """Run a recipe: its one stage, or every stage of a pipeline; returns their summaries."""
    summaries: list[dict[str, Any]] = []
    for stage in recipe.stages or (recipe,):
        aside = recipe.run_dir if restart.fresh and not summaries else None  # with all its stages, before the first
        summaries.append(run_stage(stage, restart, aside))
    if recipe.stages and os.environ.get("RANK", "0") == "0":
        print_comparison(recipe.stages, summaries)
    return summaries
