"""Parameters and arithmetic of an OLMoE network, from its configuration alone."""

import torch

from olmoe_ft.model.config import OlmoeConfig
from olmoe_ft.model.olmoe import OlmoeForCausalLM


def all_parameters(config: OlmoeConfig) -> int:
    """Weights of the network, whatever of them is loaded; a head tied to the embedding counts once."""
    with torch.device("meta"):
        return sum(weight.numel() for weight in OlmoeForCausalLM(config).parameters())


def matrix_parameters_per_token(config: OlmoeConfig) -> int:
    """Weights a token is multiplied with: attention, router, its K experts, language-model head (not the embedding)."""
    assert config.num_key_value_heads is not None
    hidden, head_size = config.hidden_size, config.hidden_size // config.num_attention_heads
    attention = 2 * hidden * hidden + 2 * hidden * config.num_key_value_heads * head_size
    router = hidden * config.num_experts
    experts = config.num_experts_per_tok * 3 * hidden * config.intermediate_size
    return config.num_hidden_layers * (attention + router + experts) + hidden * config.vocab_size


def training_flops_per_token(config: OlmoeConfig) -> int:
    """6 per weight, forward and backward (Kaplan et al. 2020, section 2.1); attention scores are not counted."""
    return 6 * matrix_parameters_per_token(config)
