"""Numbers that show how a router spreads its tokens. L layers, T tokens, E experts, K experts per token."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from olmoe_ft.objective.routing import Routing


@dataclass(frozen=True)
class RoutingStatistics:
    """Per layer, over the tokens of one `Routing`; fp32, without gradient."""

    load: Tensor  # (L, E) share of the assignments, 1 / E each at balance; a row sums to 1
    entropy: Tensor  # (L,) mean entropy of a token's router probabilities, nats; ln E if it prefers no expert
    max_violation: Tensor  # (L,) load of the busiest expert over the mean load, minus 1 (Wang et al. 2024, eq. 4)
    dead_experts: Tensor  # (L,) how many experts no token chose


def routing_statistics(routing: Routing) -> RoutingStatistics:
    """Statistics of every layer; without tokens they are 0, and all experts count as dead."""
    routing = routing.detach()
    load = routing.assignments / routing.assignments.sum(dim=-1, keepdim=True).clamp(min=1)
    return RoutingStatistics(
        load=load,
        entropy=routing.entropy / routing.tokens.clamp(min=1),
        max_violation=(load.amax(dim=-1) * load.shape[-1] - 1).clamp(min=0),
        dead_experts=(routing.assignments == 0).sum(dim=-1),
    )


def chosen_experts(router_logits: Sequence[Tensor], num_experts_per_tok: int) -> Tensor:
    """The K experts of every token: one (T, E) tensor a layer -> indices (L, T, K), the likeliest first."""
    return torch.stack([logits.float().topk(num_experts_per_tok, dim=-1).indices for logits in router_logits])


def agreement(before: Tensor, after: Tensor) -> Tensor:
    """The share of a token's experts that two models have in common, averaged over the tokens of a layer.

    This is OLMoE's router saturation (section 5.1), where it compares a checkpoint with the end of pretraining.

    Args:
        before, after: expert indices (L, T, K), distinct in each token; their order does not matter.
    Returns:
        (L,) fp32; 1.0 if the router has not changed; two unrelated routers agree on K / E.
    Raises:
        ValueError: the shapes differ.
    """
    if before.shape != after.shape:
        raise ValueError(
            f"found choices of shape {tuple(before.shape)} and {tuple(after.shape)}; give those of the same tokens"
        )
    return (before.unsqueeze(-1) == after.unsqueeze(-2)).any(-1).float().mean(dim=(1, 2))
