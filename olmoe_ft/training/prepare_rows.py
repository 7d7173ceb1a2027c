"""Read, audit and tokenize what a recipe trains on, so that a launch finds it in the cache."""

from rich.markup import escape

from olmoe_ft.data.audit_report import print_audit
from olmoe_ft.data.terminal import Console
from olmoe_ft.recipe import Recipe
from olmoe_ft.training.inputs import read_inputs
from olmoe_ft.training.model_files import model_config, with_start_of


def prepare_rows(recipe: Recipe, console: Console) -> None:
    """Prepare the rows of a recipe and of every stage in it, and show their audit. Needs no GPU and reads no weights.

    Raises:
        UserError: a file is missing, unreadable or malformed, or the cache cannot be written.
    """
    before: list[Recipe] = []
    for stage in recipe.stages or (recipe,):
        started = with_start_of(stage, before)
        inputs = read_inputs(started, model_config(started))
        console.rule(stage.name)
        print_audit(inputs.audit, inputs.train, inputs.tokenizer, console, inputs.evaluation_audit)
        evaluation = f" and {len(inputs.evaluation.rows):,} to evaluate on" if inputs.evaluation else ""
        console.print(
            f"{len(inputs.train.rows):,} rows{evaluation} are prepared in {escape(str(inputs.train.cache.folder))}"
        )
        before.append(stage)
