"""Parameters and arithmetic of an OLMoE network, from its configuration alone."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from olmoe_ft.model.config import OlmoeConfig


def all_parameters(config: "OlmoeConfig") -> int:
    """Weights of the network, whatever of them is loaded; a head tied to the embedding counts once."""
    hidden, keys = config.hidden_size, _key_size(config)
    norms = 2 * hidden + hidden + keys  # before attention and experts; of queries and keys
    biases = 2 * hidden + 2 * keys if config.attention_bias else 0
    layer = _layer_matrices(config, config.num_experts) + norms + biases
    ends = 1 if config.tie_word_embeddings else 2  # embedding, head
    return config.num_hidden_layers * layer + ends * hidden * config.vocab_size + hidden  # and the final norm


def matrix_parameters_per_token(config: "OlmoeConfig") -> int:
    """Weights a token is multiplied with: attention, router, its K experts, language-model head (not the embedding)."""
    layer = _layer_matrices(config, config.num_experts_per_tok)
    return config.num_hidden_layers * layer + config.hidden_size * config.vocab_size


def _layer_matrices(config: "OlmoeConfig", experts: int) -> int:
    """Elements of a layer's matrices, with so many of its experts."""
    hidden = config.hidden_size
    attention = 2 * hidden * hidden + 2 * hidden * _key_size(config)
    return attention + hidden * config.num_experts + experts * 3 * hidden * config.intermediate_size


def _key_size(config: "OlmoeConfig") -> int:
    assert config.num_key_value_heads is not None
    return config.num_key_value_heads * (config.hidden_size // config.num_attention_heads)


def training_flops_per_token(config: "OlmoeConfig") -> int:
    """6 per weight, forward and backward (Kaplan et al. 2020, section 2.1); attention scores are not counted."""
    return 6 * matrix_parameters_per_token(config)
