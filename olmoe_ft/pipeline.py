"""The stages of a recipe, in order."""

import warnings
from typing import Any

from olmoe_ft.recipe import Recipe
from olmoe_ft.training.stage import run_stage


def run(recipe: Recipe) -> list[dict[str, Any]]:
    """Run a recipe: its one stage, or every stage of a pipeline; returns their summaries."""
    # libraries announce to each other what they will rename; nothing a user could mend
    warnings.filterwarnings("ignore", category=FutureWarning)
    return [run_stage(stage) for stage in recipe.stages or (recipe,)]
