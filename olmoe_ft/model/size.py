"""Parameters and arithmetic of an OLMoE network, from its configuration alone."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

    from olmoe_ft.model.config import OlmoeConfig


def parameter_count(weight: "Tensor") -> int:
    """Elements of a weight. Under ZeRO-3 of the whole one, whose own size is that of this process's shard."""
    return getattr(weight, "ds_numel", weight.numel())


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


def adapter_parameters_per_token(config: "OlmoeConfig", rank: int, attention: bool, experts: bool) -> int:
    """Weights of LoRA's factors a token is multiplied with.

    A matrix (out, in) has factors (out, rank) and (rank, in).

    Args:
        attention: whether the four projections are adapted.
        experts: whether the experts are, of which a token uses K.
    """
    hidden, inner = config.hidden_size, config.intermediate_size
    ends = 2 * (hidden + hidden) + 2 * (hidden + _key_size(config)) if attention else 0  # q, o; k, v
    if experts:
        ends += config.num_experts_per_tok * ((hidden + 2 * inner) + (inner + hidden))  # gate and up; down
    return config.num_hidden_layers * rank * ends


def training_flops_per_token(
    config: "OlmoeConfig", factors: int | None = None, policy: int = 0, reference: int = 0
) -> int:
    """FLOPs that forward and backward cannot do without; attention scores are not counted.

    A product of a token with n weights is 2n forward, 2n for the token's gradient, and 2n for that of the weights where
    they are trained (Kaplan et al. 2020, section 2.1).

    Args:
        factors: weights of adapters per token, which are then what is trained; None trains all weights.
        policy: how often the model runs forward beside it.
        reference: how often a frozen reference model, without adapters, does.
    """
    weights = matrix_parameters_per_token(config)
    trained = 6 * weights if factors is None else 4 * weights + 6 * factors
    return trained + policy * 2 * (weights + (factors or 0)) + reference * 2 * weights


def recomputed_flops_per_token(config: "OlmoeConfig", factors: int = 0) -> int:
    """What checkpointing adds: the layers, with their adapters, forward a second time; not the head."""
    head = config.hidden_size * config.vocab_size
    return 2 * (matrix_parameters_per_token(config) - head + factors)
