"""What an evaluation between two steps needs beside the training."""

from olmoe_ft.model import OlmoeConfig
from olmoe_ft.model.size import all_parameters
from olmoe_ft.recipe import Recipe
from olmoe_ft.training.run_directory import BYTES

GROWING = 2  # while a cache grows, the old and the new one are there
TOKENS = 1024  # of a question and its answer, at most the network's positions; a benchmark with more needs more


def evaluation_bytes(recipe: Recipe, config: OlmoeConfig) -> int:
    """Bytes of the weights, whole on each device, and of the keys and values of a batch of questions; 0 where nothing
    is evaluated between steps."""
    section = recipe.evaluation
    if section.every_steps is None or not (section.tasks or section.suite or recipe.data.answers):
        return 0
    tokens = section.batch_size * min(TOKENS, config.max_position_embeddings)
    assert config.num_key_value_heads is not None  # the configuration fills it in
    keys = config.hidden_size // config.num_attention_heads * config.num_key_value_heads
    cache = 2 * config.num_hidden_layers * keys * tokens * GROWING
    return (all_parameters(config) + cache) * BYTES[recipe.model.dtype]
