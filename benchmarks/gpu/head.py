"""Is the fused head right? Log-probabilities of labels, and the gradients of hidden states and of the head's weight.

Shapes: T tokens, H hidden, V vocabulary.
"""

from typing import Any

import torch
from torch import Tensor, nn

from gpu.exact import ROUNDING, after_many, compare, drawn, poison, shapes
from gpu.part import Part
from olmoe_ft.model import OlmoeConfig


def run(part: Part) -> None:
    part.attempt("head", lambda: check(part))


def check(part: Part) -> None:
    """Half of the tokens have a label; under autocast, as in training."""
    from olmoe_ft.training.scoring import score_hidden

    network = small(part)
    s = shapes(part)
    hidden = drawn(part, 1, s.tokens, s.hidden)
    labels = torch.randint(0, s.vocabulary, (1, s.tokens), device=part.device)
    scored = torch.arange(0, s.tokens - 1, 2, device=part.device)
    gradient = torch.randn(len(scored), device=part.device)
    given, weight = hidden.clone().requires_grad_(), network.lm_head.weight
    poison(part)
    with torch.autocast(part.device, torch.bfloat16):
        states = network.model.norm(given)[0, scored]
        log_probs = score_hidden(network, states, labels[0, 1:][scored])["log_probs"]
    found = torch.autograd.grad(log_probs, [given, weight], gradient.to(log_probs.dtype))
    exact_given = [hidden.double().requires_grad_(), weight.detach().double().requires_grad_()]
    exact = exactly(*exact_given, labels[0, 1:], scored, network.config.rms_norm_eps)
    expected = torch.autograd.grad(exact, exact_given, gradient.double())
    # a logit is rounded as the hidden state that it is of; the labels' are of size 1
    compare(part, "head: log-probabilities", log_probs.detach(), exact.detach(), 8 * ROUNDING * torch.ones_like(exact))
    for name, one, other in zip(("hidden states", "weight"), found, expected, strict=True):
        compare(part, f"head: gradient of {name}", one, other, after_many(other))


def small(part: Part) -> Any:
    """A network of which norm and head are used, whose logits are of size 1."""
    from olmoe_ft.training.scoring import ScoringOlmoe

    s = shapes(part)
    sizes = {"hidden_size": s.hidden, "intermediate_size": s.inner, "num_attention_heads": s.heads}
    config = OlmoeConfig(vocab_size=s.vocabulary, num_hidden_layers=1, num_experts=2, num_experts_per_tok=1, **sizes)
    with torch.device(part.device):
        network = ScoringOlmoe(config).bfloat16().train()
    nn.init.normal_(network.lm_head.weight, std=s.hidden**-0.5)
    return network


def exactly(hidden: Tensor, weight: Tensor, targets: Tensor, scored: Tensor, eps: float) -> Tensor:
    rows = hidden[0, scored]
    rows = rows * torch.rsqrt(rows.square().mean(dim=-1, keepdim=True) + eps)  # the norm's weight is 1
    return (rows @ weight.t()).log_softmax(dim=-1).gather(1, targets[scored, None])[:, 0]
