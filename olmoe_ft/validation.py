"""What `olmoe-ft validate` says of recipes: all that can be known without loading anything."""

from collections.abc import Iterator

from olmoe_ft.planning.machine import Machine, check_machine, read_machine
from olmoe_ft.recipe import Recipe, UserError, load_recipe
from olmoe_ft.recipe.check import notes
from olmoe_ft.recipe.errors import gathered
from olmoe_ft.recipe.options.device import check_packages
from olmoe_ft.recipe.precision import check_optimizer
from olmoe_ft.training.wandb_mode import choose


def check_recipes(paths: list[str], accelerate: str | None) -> Iterator[str]:
    """What is to be said of recipes that are right: options without effect, and machines that they are not for.

    Args:
        paths: of recipes.
        accelerate: accelerate's file of the machine that they are to run on; None: it is not known.
    Raises:
        UserError: with all that is wrong in any of them, after the rest was said.
    """
    machine = read_machine(accelerate) if accelerate is not None else None
    wrong: list[str] = []
    elsewhere: list[str] = []  # what is wrong on some machines only
    for path in paths:
        with gathered(wrong):
            recipe = load_recipe(path)
            yield from (f"{path}: {note}" for note in notes(recipe))
            for stage in recipe.runs:
                wrong += [f"{path}: {problem}" for problem in _problems(stage, machine, accelerate)]
                lossy: list[str] = []
                with gathered(lossy):
                    check_optimizer(stage, machine is not None and machine.deepspeed, accelerate or "one process")
                (wrong if machine is not None else elsewhere).extend(f"{path}: {problem}" for problem in lossy)
    if wrong:
        raise UserError(wrong)
    yield from (f"only for DeepSpeed: {text}" for text in elsewhere)  # it is right where DeepSpeed trains


def _problems(stage: Recipe, machine: Machine | None, accelerate: str | None) -> list[str]:
    found: list[str] = []
    with gathered(found):
        check_packages(stage)
    with gathered(found):
        if machine is not None:
            check_machine(stage, machine, str(accelerate))
    with gathered(found):
        if stage.tracking.wandb == "online":  # here alone: a key is found without asking anyone
            choose(stage.tracking.wandb)
    return found
