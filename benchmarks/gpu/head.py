"""Is the fused head right? Log-probabilities of labels, and the gradients of hidden states and of the head's weight.

Shapes: T tokens, H hidden, V vocabulary.
"""

import torch
from torch import Tensor, nn

from gpu.exact import ROUNDING, after_many, compare, drawn, poison, shapes
from gpu.part import Part
from olmoe_ft.model import OlmoeConfig, OlmoeForCausalLM


def run(part: Part) -> None:
    part.attempt("head", lambda: check(part))


def check(part: Part) -> None:
    """Half of the tokens have a label; under autocast, as in training."""
    from olmoe_ft.training.fused_head import SFT_OUTPUTS, use_fused_head

    network = headless(part)
    use_fused_head(network, SFT_OUTPUTS)
    s = shapes(part)
    hidden = drawn(part, 1, s.tokens, s.hidden)
    labels = torch.randint(0, s.vocabulary, (1, s.tokens), device=part.device)
    scored = torch.arange(0, s.tokens - 1, 2, device=part.device)
    gradient = torch.randn(len(scored), device=part.device)
    given, weight = hidden.clone().requires_grad_(), network.lm_head.weight
    packed = {"inputs_embeds": given, "places": scored, "scored": scored}
    poison(part)
    with torch.autocast(part.device, torch.bfloat16):
        log_probs = network(input_ids=None, labels=labels, fused_lm_head=True, packed=packed).log_probs[0, scored]
    found = torch.autograd.grad(log_probs, [given, weight], gradient.to(log_probs.dtype))
    exact_given = [hidden.double().requires_grad_(), weight.detach().double().requires_grad_()]
    exact = exactly(*exact_given, labels[0, 1:], scored, network.config.rms_norm_eps)
    expected = torch.autograd.grad(exact, exact_given, gradient.double())
    # a logit is rounded as the hidden state that it is of; the labels' are of size 1
    compare(part, "head: log-probabilities", log_probs.detach(), exact.detach(), 8 * ROUNDING * torch.ones_like(exact))
    for name, one, other in zip(("hidden states", "weight"), found, expected, strict=True):
        compare(part, f"head: gradient of {name}", one, other, after_many(other))


def headless(part: Part) -> OlmoeForCausalLM:
    """A network of embeddings, norm and head, whose logits are of size 1."""
    s = shapes(part)
    sizes = {"hidden_size": s.hidden, "intermediate_size": s.inner, "num_attention_heads": s.heads}
    config = OlmoeConfig(vocab_size=s.vocabulary, num_hidden_layers=1, num_experts=2, num_experts_per_tok=1, **sizes)
    with torch.device(part.device):
        network = OlmoeForCausalLM(config).bfloat16().train()
    network.model.layers = nn.ModuleList()
    nn.init.normal_(network.lm_head.weight, std=s.hidden**-0.5)
    return network


def exactly(hidden: Tensor, weight: Tensor, targets: Tensor, scored: Tensor, eps: float) -> Tensor:
    rows = hidden[0, scored]
    rows = rows * torch.rsqrt(rows.square().mean(dim=-1, keepdim=True) + eps)  # the norm's weight is 1
    return (rows @ weight.t()).log_softmax(dim=-1).gather(1, targets[scored, None])[:, 0]
