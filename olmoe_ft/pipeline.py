"""The stages of a recipe, in order."""

import os
from typing import Any

from olmoe_ft.recipe import Recipe
from olmoe_ft.training.report import print_comparison
from olmoe_ft.training.stage import check_rows, run_stage


def run(recipe: Recipe) -> list[dict[str, Any]]:
    """Run a recipe: its one stage, or every stage of a pipeline; returns their summaries."""
    for stage in recipe.stages[1:]:  # a mistake in a later stage's files is found before the first one trains
        check_rows(stage)
    summaries = [run_stage(stage) for stage in recipe.stages or (recipe,)]
    if recipe.stages and os.environ.get("RANK", "0") == "0":
        print_comparison(recipe.stages, summaries)
    return summaries
