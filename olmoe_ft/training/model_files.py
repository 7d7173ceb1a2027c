"""The files that a stage's network starts from: its configuration and tokenizer, no weights.

torch and transformers take seconds to import, so they are imported once a file has been found to be there.
"""

import json
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from olmoe_ft.checkpoints.folders import check_weights, load_config, resolve_checkpoint
from olmoe_ft.reasons import one_line
from olmoe_ft.recipe import Recipe, UserError
from olmoe_ft.recipe.paths import sought
from olmoe_ft.recipe.wording import nearest

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from olmoe_ft.model import OlmoeConfig

OTHER_SPELLINGS = ("rope_theta", "rope_scaling", "torch_dtype", "head_dim")  # of released files


class ModelFiles:
    """The files that a recipe's `model` section names, each read once.

    Args:
        recipe: of one stage, whose `model` names files that are there.
    """

    def __init__(self, recipe: Recipe) -> None:
        self.recipe = recipe

    def check(self) -> None:
        """What is quick to find: a configuration that cannot be read, weights that are missing or cut off.

        Raises:
            UserError: there is one.
        """
        if self.start is None:
            _ = self.values  # read here, used by `config`
        else:
            check_weights(self.start)

    @cached_property
    def start(self) -> str | None:
        """The folder (or Hub name) of the weights; None for random ones.

        Raises:
            UserError: `resolve_checkpoint` finds none.
        """
        path = self.recipe.model.path
        return None if path is None else resolve_checkpoint(path)

    @cached_property
    def values(self) -> dict[str, Any]:
        """What `model.config` holds.

        Raises:
            UserError: it cannot be read, or holds no JSON object.
        """
        assert self.recipe.model.config is not None  # the schema asks for a path or a config
        return config_values(self.recipe.model.config)

    @cached_property
    def config(self) -> "OlmoeConfig":
        """The network: of `model.path`'s checkpoint, or of `model.config`; no weights.

        Raises:
            UserError: there is no such checkpoint or file, or its sizes contradict each other.
        """
        if self.start is not None:
            return load_config(self.start)
        assert self.recipe.model.config is not None
        return _config_of(self.recipe.model.config, self.values)

    @cached_property
    def tokenizer(self) -> "PreTrainedTokenizerBase":
        """The tokenizer that the recipe names, or that lies beside its checkpoint.

        Raises:
            UserError: it is not there, cannot be used, or does not fit the network.
        """
        return self.tokenizer_for(self.config)

    def tokenizer_for(self, config: "OlmoeConfig") -> "PreTrainedTokenizerBase":
        """The same beside a network whose own configuration cannot be had."""
        from olmoe_ft.data.tokenizer import load_tokenizer

        if self.recipe.model.tokenizer is not None:
            return load_tokenizer(self.recipe.model.tokenizer, config.vocab_size)
        assert self.start is not None  # the schema asks for a tokenizer beside `config`
        return load_tokenizer(self.start, config.vocab_size)


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
        raise UserError(
            f"{file}: no model configuration (it holds no object); correct the file (`olmoe-ft recipes` lists some)"
        )
    return values


def _config_of(file: str, values: dict[str, Any]) -> "OlmoeConfig":
    """The network that the values of a `model.config` describe."""
    from olmoe_ft.model import OlmoeConfig

    if values.get("model_type", "olmoe") != "olmoe":
        raise UserError(f"{file}: no model configuration (of another `model_type`); this pipeline trains 'olmoe' only")
    values = {name: value for name, value in values.items() if name != "model_type"}
    known = [*OlmoeConfig().to_dict(), *OlmoeConfig.attribute_map, *OTHER_SPELLINGS]
    for name in values:
        if name not in known:
            raise UserError(f"{file}: `{name}` is no field of a model configuration{nearest(name, known)}")
    try:
        return OlmoeConfig(**values)
    except (ValueError, TypeError, AttributeError) as error:
        raise UserError(f"{file}: no model configuration ({one_line(error)})") from None


def with_start_of(recipe: Recipe, to_come: Sequence[Recipe]) -> Recipe:
    """A stage that continues from a run that is to come, with the files from which that run starts; else it as it is.

    Until that run has finished its network and its tokenizer are known from these.

    Args:
        to_come: the earlier stages of the pipeline that are still to be trained.
    """
    for earlier in to_come:
        if recipe.model.path == str(earlier.run_dir):
            start = with_start_of(earlier, to_come).model
            kept = {"path": start.path, "config": start.config, "tokenizer": recipe.model.tokenizer or start.tokenizer}
            return recipe.model_copy(update={"model": recipe.model.model_copy(update=kept)})
    return recipe
