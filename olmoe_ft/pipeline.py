"""The stages of a recipe, in order: all of them are read first, then one after the other is trained."""

from rich.markup import escape

from olmoe_ft.data.terminal import Console
from olmoe_ft.inputs import Inputs, prepare_inputs
from olmoe_ft.ranks import is_first
from olmoe_ft.recipe import Recipe
from olmoe_ft.recipe.changes import GO_ON, Restart
from olmoe_ft.summary import Summary, print_comparison


def run(recipe: Recipe, restart: Restart = GO_ON) -> list[Summary]:
    """Train a recipe: its one stage, or every stage of a pipeline. Goes on with runs that had begun before.

    Args:
        restart: whether to begin anew, and what may be another than before.
    Returns:
        what each stage's run has come to, in order.
    Raises:
        UserError: the recipe, its data, its model or a run directory is wrong; nothing was written then.
        RunError: what ends a run whose recipe is right.
    """
    stages = prepare_inputs(recipe, restart)
    from olmoe_ft.report.of_run import page_of_pipeline
    from olmoe_ft.run_stage import run_stage  # the trainers, whose import takes seconds

    summaries: list[Summary] = []
    with page_of_pipeline(recipe):
        for stage in stages:
            aside = recipe.run_dir if restart.fresh and not summaries else None  # with all its stages, before the first
            summaries.append(run_stage(stage, restart, aside))
    if recipe.stages and is_first():
        print_comparison(recipe.stages, summaries)
    return summaries


def prepare(recipe: Recipe) -> None:
    """Read, audit and tokenize the rows of a recipe, or of every stage in it, and show what they are.

    A launch finds them in the cache. Needs no GPU and reads no weights.

    Raises:
        UserError: a file is missing, unreadable or malformed, or the cache cannot be written.
    """
    stages = prepare_inputs(recipe, into_runs=False)
    for stage in stages:
        assert isinstance(stage, Inputs)
        _print_prepared(stage)


def _print_prepared(inputs: Inputs) -> None:
    from olmoe_ft.data.audit_report import print_audit

    console = Console()
    console.rule(inputs.recipe.name)
    print_audit(inputs.audit, inputs.train, inputs.tokenizer, console, inputs.evaluation_audit)
    evaluation = f" and {len(inputs.evaluation.rows):,} to evaluate on" if inputs.evaluation else ""
    folder = escape(str(inputs.train.cache.folder))
    console.print(f"{len(inputs.train.rows):,} rows{evaluation} are prepared in {folder}")
