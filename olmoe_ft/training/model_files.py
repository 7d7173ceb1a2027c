"""The files that a stage's network starts from: its configuration and tokenizer, no weights.

torch and transformers take seconds to import, so they are imported once a file has been found to be there.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from olmoe_ft.checkpoints.folders import load_config, resolve_checkpoint
from olmoe_ft.reasons import one_line
from olmoe_ft.recipe import Recipe, UserError
from olmoe_ft.recipe.paths import sought
from olmoe_ft.recipe.wording import nearest
from olmoe_ft.training.run_directory import RunDirectory

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from olmoe_ft.model import OlmoeConfig

OTHER_SPELLINGS = ("rope_theta", "rope_scaling", "torch_dtype", "head_dim")  # of released files


def config_values(file: str) -> dict[str, Any]:
    """What `model.config` holds.

    Raises:
        UserError: it cannot be read, or holds no JSON object.
    """
    try:
        values = json.loads(Path(file).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{file}: no model configuration, there is no such file ({sought(file)})") from None
    except OSError as error:
        raise UserError(f"{file}: no model configuration ({error.strerror}); set model.config") from None
    except (ValueError, RecursionError) as error:
        raise UserError(f"{file}: no model configuration (not valid JSON: {error}); correct the file") from None
    if not isinstance(values, dict):
        raise UserError(f"{file}: no model configuration (it holds no object); `olmoe-ft recipes` lists some")
    return values


def model_config(recipe: Recipe) -> "OlmoeConfig":
    """The network of a recipe: of `model.path`'s checkpoint, or read from `model.config`; no weights.

    Raises:
        UserError: there is no such checkpoint or file, or its sizes contradict each other.
    """
    if recipe.model.path is not None:
        return load_config(resolve_checkpoint(recipe.model.path))
    assert recipe.model.config is not None
    file, values = recipe.model.config, config_values(recipe.model.config)
    from olmoe_ft.model import OlmoeConfig

    if values.pop("model_type", "olmoe") != "olmoe":
        raise UserError(f"{file}: no model configuration (of another `model_type`); this pipeline trains 'olmoe' only")
    known = [*OlmoeConfig().to_dict(), *OlmoeConfig.attribute_map, *OTHER_SPELLINGS]
    for name in values:
        if name not in known:
            raise UserError(f"{file}: `{name}` is no field of a model configuration{nearest(name, known)}")
    try:
        return OlmoeConfig(**values)
    except (ValueError, TypeError, AttributeError) as error:
        raise UserError(f"{file}: no model configuration ({one_line(error)})") from None


def with_start_of(recipe: Recipe, before: Sequence[Recipe]) -> Recipe:
    """A stage that goes on from the run of an earlier one, with the files from which that one starts.

    Until that run has finished, and is whole, its network and its tokenizer are known from these.
    """
    for earlier in before:
        if recipe.model.path == str(earlier.run_dir) and RunDirectory(earlier).finished() is None:
            start = with_start_of(earlier, before).model
            kept = {"path": start.path, "config": start.config, "tokenizer": recipe.model.tokenizer or start.tokenizer}
            return recipe.model_copy(update={"model": recipe.model.model_copy(update=kept)})
    return recipe


def stage_tokenizer(recipe: Recipe, config: "OlmoeConfig") -> "PreTrainedTokenizerBase":
    """The tokenizer that a recipe names, or that lies beside its checkpoint."""
    from olmoe_ft.data.tokenizer import load_tokenizer

    if recipe.model.tokenizer is not None:
        return load_tokenizer(recipe.model.tokenizer, config.vocab_size)
    assert recipe.model.path is not None  # the schema asks for a tokenizer beside `config`
    return load_tokenizer(resolve_checkpoint(recipe.model.path), config.vocab_size)
