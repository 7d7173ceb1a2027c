"""Small networks for the tests, ours and transformers', with weights away from their trivial start."""

import torch
import transformers

from olmoe_ft.model import OlmoeConfig, OlmoeForCausalLM
from olmoe_ft.training.scoring import FIELDS, ScoringOlmoe

SMALL = {
    "vocab_size": 97,
    "hidden_size": 32,
    "intermediate_size": 24,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_experts": 8,
    "num_experts_per_tok": 2,
    "max_position_embeddings": 48,
    "eos_token_id": 2,
}


def shaken(model: torch.nn.Module, scale: float = 0.1) -> torch.nn.Module:
    """Noise on every parameter, so that norms are not all one, biases not zero and logits not all alike."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * scale)
    return model


def ours(**options) -> OlmoeForCausalLM:
    return shaken(OlmoeForCausalLM(OlmoeConfig(**{**SMALL, **options}))).eval()


def scoring(**options) -> ScoringOlmoe:
    """A network that computes every field of labels."""
    model = shaken(ScoringOlmoe(OlmoeConfig(**{**SMALL, **options}))).eval()
    model.fields = FIELDS
    return model


def pair(**options) -> tuple[transformers.OlmoeForCausalLM, OlmoeForCausalLM]:
    """transformers' network and ours with the same weights, in training mode; `options` over SMALL."""
    options = {**SMALL, **options}
    odd = options["intermediate_size"] % 8 or options["hidden_size"] % 8  # its grouped products crash there
    loop = {"experts_implementation": "eager"} if odd else {}
    stock = shaken(transformers.OlmoeForCausalLM(transformers.OlmoeConfig(**options, **loop)))
    network = OlmoeForCausalLM(OlmoeConfig(**options))
    network.load_state_dict(stock.state_dict())
    return stock.train(), network.train()


def assert_close(actual, expected, tolerance: float = 1e-5) -> None:
    torch.testing.assert_close(actual, expected, rtol=0, atol=tolerance)
