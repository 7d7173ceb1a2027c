"""What a stage reads before a weight is loaded: tokenizer, rows, held-out prompts."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from transformers import PreTrainedTokenizerBase

from olmoe_ft.data.mixture import Mixture, load_mixtures
from olmoe_ft.data.questions import Question, load_questions
from olmoe_ft.recipe import Recipe
from olmoe_ft.training.model_files import stage_tokenizer

if TYPE_CHECKING:
    from olmoe_ft.model import OlmoeConfig


@dataclass(frozen=True)
class Inputs:
    """What a stage reads before it writes."""

    tokenizer: PreTrainedTokenizerBase
    train: Mixture
    evaluation: Mixture | None
    questions: list[Question] | None


def read_inputs(recipe: Recipe, config: "OlmoeConfig", max_length: int | None) -> Inputs:
    """Tokenizer, training and evaluation rows and held-out prompts of a stage; the main process reads them first, and
    the others from its cache.

    Raises:
        RecipeError: a file is missing, empty or malformed.
    """
    from accelerate import PartialState

    with PartialState().main_process_first():
        tokenizer = stage_tokenizer(recipe, config)
        questions = load_questions(recipe.data.answers) if recipe.data.answers else None
        prompts = [question.texts() for question in questions or ()]
        train, evaluation = load_mixtures(recipe, max_length, tokenizer, prompts)
    return Inputs(tokenizer, train, evaluation, questions)
