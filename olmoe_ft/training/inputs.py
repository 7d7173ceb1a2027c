"""What a stage reads before a weight is loaded: tokenizer, rows, held-out prompts."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from datasets import Dataset
from transformers import PreTrainedTokenizerBase

from olmoe_ft.data.audit import Audit, audit
from olmoe_ft.data.mixture import Mixture, load_mixtures
from olmoe_ft.evaluation.questions import Question, load_questions
from olmoe_ft.recipe import Recipe
from olmoe_ft.recipe.training_fields import default_of
from olmoe_ft.training.model_files import stage_tokenizer
from olmoe_ft.training.packing import trainer_rows

if TYPE_CHECKING:
    from olmoe_ft.model import OlmoeConfig


@dataclass(frozen=True)
class Inputs:
    """What a stage reads before it writes."""

    tokenizer: PreTrainedTokenizerBase
    train: Mixture
    evaluation: Mixture | None
    train_rows: Dataset
    """What the trainer takes of the mixture, packed where the recipe packs."""
    evaluation_rows: Dataset | None
    questions: list[Question] | None
    audit: Audit
    """What is in the training rows."""
    evaluation_audit: Audit | None
    fingerprints: dict[str, Any]
    """Hashes of the training rows, for `run.json`."""


def read_inputs(recipe: Recipe, config: "OlmoeConfig") -> Inputs:
    """Tokenizer, training and evaluation rows and held-out prompts of a stage; rows come from the cache once read.

    In a launch the first process of each machine reads them and the others wait for it, outside of any collective.

    Raises:
        UserError: a file is missing, empty or malformed.
    """
    tokenizer = stage_tokenizer(recipe, config)
    questions = load_questions(recipe.data.answers) if recipe.data.answers else None
    prompts = [question.texts() for question in questions or ()]
    max_length = recipe.training.get("max_length", default_of(recipe.stage, "max_length"))
    train, evaluation = load_mixtures(recipe, max_length, tokenizer, prompts)
    positions = config.max_position_embeddings
    audits = [audit(mixture, positions) if mixture else None for mixture in (train, evaluation)]
    assert audits[0] is not None
    rows = trainer_rows(train, recipe)
    evaluation_rows = trainer_rows(evaluation, recipe, evaluation=True) if evaluation else None
    fingerprints = train.fingerprints()
    return Inputs(tokenizer, train, evaluation, rows, evaluation_rows, questions, audits[0], audits[1], fingerprints)
