"""A recipe is data: YAML in, one frozen, fully checked object out. Imports neither torch nor transformers.

`yaml_file` reads a file and remembers the line of each value (`document`), `pipeline` resolves the stages of a
pipeline, `schema` says what one field may hold and `rules` what fields say about each other (with TRL's own names from
`training_fields`); `training_rules` judges `training`; `load` puts these together and `check` turns what they find into
sentences.
"""

from olmoe_ft.recipe.errors import RecipeError, RunError, Unreachable, UserError
from olmoe_ft.recipe.load import load_recipe
from olmoe_ft.recipe.schema import Recipe

__all__ = ["Recipe", "RecipeError", "RunError", "Unreachable", "UserError", "load_recipe"]
