"""The light phase of a plan: as that of a launch, but what is on the Hub or is to come may be missing."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from olmoe_ft.data.locations import read_rows
from olmoe_ft.inputs import Inputs, prepare_inputs, read_stage
from olmoe_ft.recipe import Recipe, Unreachable
from olmoe_ft.shipped import found
from olmoe_ft.training.model_files import ModelFiles, with_start_of
from olmoe_ft.training.run_directory import RunDirectory

if TYPE_CHECKING:
    from olmoe_ft.model import OlmoeConfig

RELEASED = "olmoe-1b-7b"  # every released model with this in its name, and its runs, has the sizes of the file below
RELEASED_CONFIG = "configs/model/olmoe_1b_7b.json"


@dataclass(frozen=True)
class PlanInputs:
    """What could be read of a stage.

    Attributes:
        recipe: where it continues from a run that is to come, with the files from which that run starts.
        inputs: None where a part of them cannot be had.
        lacking: these parts.
        unreachable: why they, or the network's configuration, cannot be had; a sentence each.
    """

    recipe: Recipe
    config: "OlmoeConfig"
    inputs: Inputs | None
    lacking: list[str]
    unreachable: list[str]


def plan_inputs(recipe: Recipe) -> list[PlanInputs]:
    """Read what the stages of a recipe name: configuration, tokenizer, rows; no weights.

    Raises:
        UserError: a file the recipe names is missing or wrong, as `train` would say.
    """
    try:
        stages = prepare_inputs(recipe, into_runs=False)
    except Unreachable:  # then what can be reached is planned with
        return _part_by_part(recipe)
    return [PlanInputs(one.known_start, one.config, one, [], []) for one in stages if isinstance(one, Inputs)]


def _part_by_part(recipe: Recipe) -> list[PlanInputs]:
    stages: list[PlanInputs] = []
    to_come: list[Recipe] = []
    for stage in recipe.runs:
        stages.append(_reached(stage, to_come))
        if RunDirectory(stage).finished() is None:
            to_come.append(stage)
    return stages


def _reached(stage: Recipe, to_come: Sequence[Recipe]) -> PlanInputs:
    """What can be had of a stage, each part looked at by itself, so that each that cannot is named."""
    files = ModelFiles(with_start_of(stage, to_come))
    unreachable: list[str] = []
    inputs: Inputs | None = None
    try:
        config = files.config
    except Unreachable as error:
        if RELEASED not in str(files.recipe.model.path).lower():
            raise
        unreachable.append(f"{error}; planned with {RELEASED_CONFIG}")
        from olmoe_ft.model import OlmoeConfig

        config = OlmoeConfig.from_json_file(found(RELEASED_CONFIG))
    lacking = _lacking(files, config)
    if not lacking:
        try:
            inputs = read_stage(stage, files, config)
        except Unreachable as error:
            lacking["the benchmarks to look for"] = str(error)
    return PlanInputs(files.recipe, config, inputs, [*lacking], [*unreachable, *lacking.values()])


def _lacking(files: ModelFiles, config: "OlmoeConfig") -> dict[str, str]:
    """Which of a stage's inputs cannot be had, and why."""

    def first_rows() -> None:
        for source in (*files.recipe.data.train, *files.recipe.data.eval):
            next(read_rows(source.path, source.split, source.config, source.revision), None)

    lacking = {}
    looks = {"the tokenizer": lambda: files.tokenizer_for(config), "the data": first_rows}
    for what, look in looks.items():
        try:
            look()
        except Unreachable as error:
            lacking[what] = str(error)
    return lacking
