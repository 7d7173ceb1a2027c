"""What a stage reads before a weight is loaded: configuration, tokenizer, rows, held-out prompts.

Nothing here imports the trainers: a mistake in a file is said in seconds.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from transformers import PreTrainedTokenizerBase

from olmoe_ft.adapters.folders import check_weights, load_config, resolve_checkpoint
from olmoe_ft.data.files import read_rows
from olmoe_ft.data.mixture import Mixture, load_mixtures
from olmoe_ft.data.questions import Question, load_questions
from olmoe_ft.data.sources import load_source
from olmoe_ft.data.tokenizer import load_tokenizer
from olmoe_ft.recipe import Recipe, RecipeError
from olmoe_ft.recipe.wording import nearest
from olmoe_ft.training.run_directory import RunDirectory

if TYPE_CHECKING:  # torch takes seconds to import
    from olmoe_ft.model import OlmoeConfig

OTHER_SPELLINGS = ("rope_theta", "rope_scaling", "torch_dtype", "head_dim", "attn_implementation")  # of released files


def check_files(recipe: Recipe, into_runs: bool = True) -> None:
    """Everything that can be wrong with the files of a recipe and of every stage in it, the quickest checks first.

    Args:
        into_runs: whether it is to be trained into its run directories.
    Raises:
        RecipeError: a file is missing, unreadable or malformed, or a run directory holds something else.
    """
    to_come: set[str] = set()  # run directories that earlier stages will have written
    for stage in recipe.stages or (recipe,):
        starts_from_files = stage.model.path not in to_come
        sources = (*stage.data.train, *stage.data.eval)
        if into_runs:
            RunDirectory(stage).check()
            if RunDirectory(stage).read_summary() is not None:
                continue  # it has finished: nothing will be read
        if stage.model.config is not None:
            _config_values(stage.model.config)
        elif starts_from_files:
            assert stage.model.path is not None  # the schema asks for one of the two
            check_weights(resolve_checkpoint(stage.model.path))
        for source in sources:
            next(read_rows(source.path, source.split, source.config, source.revision), None)
        if stage.data.answers:
            load_questions(stage.data.answers)
        if starts_from_files:
            stage_tokenizer(stage, model_config(stage))
        for source in sources:
            load_source(source, stage.stage, stage.data.malformed)
        to_come.add(str(stage.run_dir))


def model_config(recipe: Recipe) -> "OlmoeConfig":
    """The network of a recipe: of `model.path`'s checkpoint, or read from `model.config`; no weights.

    Raises:
        RecipeError: there is no such checkpoint or file, or its sizes contradict each other.
    """
    if recipe.model.path is not None:
        return load_config(resolve_checkpoint(recipe.model.path))
    assert recipe.model.config is not None
    file, values = recipe.model.config, _config_values(recipe.model.config)
    from olmoe_ft.model import OlmoeConfig

    if values.pop("model_type", "olmoe") != "olmoe":
        raise RecipeError(
            f"{file}: no model configuration (of another `model_type`); this pipeline trains 'olmoe' only"
        )
    known = [*OlmoeConfig().to_dict(), *OlmoeConfig.attribute_map, *OTHER_SPELLINGS]
    for name in values:
        if name not in known:
            raise RecipeError(f"{file}: `{name}` is no field of a model configuration{nearest(name, known)}")
    try:
        return OlmoeConfig(**values)
    except (ValueError, TypeError, AttributeError) as error:
        raise RecipeError(f"{file}: no model configuration ({str(error).splitlines()[0]})") from None


def _config_values(file: str) -> dict[str, Any]:
    try:
        values = json.loads(Path(file).read_text(encoding="utf-8"))
    except OSError as error:
        raise RecipeError(f"{file}: no model configuration ({error.strerror}); set model.config") from None
    except (ValueError, RecursionError) as error:
        raise RecipeError(f"{file}: no model configuration (not valid JSON: {error}); mend the file") from None
    if not isinstance(values, dict):
        raise RecipeError(f"{file}: no model configuration (it holds no object); see configs/model/ for some")
    return values


def stage_tokenizer(recipe: Recipe, config: "OlmoeConfig") -> PreTrainedTokenizerBase:
    """The tokenizer that a recipe names, or that lies beside its checkpoint."""
    if recipe.model.tokenizer is not None:
        return load_tokenizer(recipe.model.tokenizer, config.vocab_size)
    assert recipe.model.path is not None  # the schema asks for a tokenizer beside `config`
    return load_tokenizer(resolve_checkpoint(recipe.model.path), config.vocab_size)


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
