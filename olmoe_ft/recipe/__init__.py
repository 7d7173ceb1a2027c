"""A recipe is data: YAML in, one frozen, fully checked object out. Imports neither torch nor transformers.

`yaml_file` reads a file and remembers where each value stands (`document`), `stages` resolves a pipeline, `schema` says
what one field may hold and `rules` what fields say about each other (with TRL's own names from `training_fields`);
`training_rules` judges `training`; `load` puts these together and `messages` turns what they find into sentences.
"""

from olmoe_ft.recipe.errors import RecipeError, RunError, Unreachable
from olmoe_ft.recipe.load import load_recipe
from olmoe_ft.recipe.schema import Recipe

__all__ = ["Recipe", "RecipeError", "RunError", "Unreachable", "load_recipe"]
