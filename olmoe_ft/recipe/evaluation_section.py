"""The section `evaluation` of a recipe: which tasks are put to the model, and when."""

from typing import Literal

from pydantic import Field

from olmoe_ft.recipe.section import Section, Text


class EvaluationSection(Section):
    """Tasks to put to the model besides `data.answers`, and when all of them are put."""

    tasks: tuple[Text, ...] = Field((), strict=False)
    """Names of tasks that come with olmoe_ft or with lm-eval, or task files (.yaml); `NAME=FILE` puts a file of yours
    in the place of a task's rows. `olmoe-ft evaluate --help` has more."""
    suite: Literal["olmoe"] | None = None
    """A list of tasks with published values beside them: `olmoe` is the table of the OLMoE paper."""
    before: bool = True
    """Evaluate the weights that the run starts from."""
    after: bool = True
    """Evaluate the weights that the run ends with."""
    every_steps: int | None = Field(None, ge=1)
    """Evaluate the weights after every so many steps too. They are written to disk and loaded beside those in
    training, so there must be memory for both."""
    limit: int | None = Field(None, ge=1)
    """Put only this many questions of each task, from its start."""
    batch_size: int = Field(64, ge=1)
    """Questions that each process answers at once."""
    allow_code: bool = False
    """Let tasks run code that the model has written, such as HumanEval. Do it in a container."""
