"""Numbers that show how a router spreads its tokens. L layers, E experts."""

from dataclasses import dataclass

from torch import Tensor

from olmoe_ft.objective.routing import Routing


@dataclass(frozen=True)
class RoutingStatistics:
    """Per layer, over the tokens of one `Routing`; fp32, without gradient."""

    load: Tensor  # (L, E) share of the assignments, 1 / E each at balance; a row sums to 1
    entropy: Tensor  # (L,) mean entropy of a token's router probabilities, nats; ln E where the router knows nothing
    max_violation: Tensor  # (L,) load of the busiest expert over the mean load, minus 1 (Wang et al. 2024, eq. 4)
    dead_experts: Tensor  # (L,) how many experts no token chose


def routing_statistics(routing: Routing) -> RoutingStatistics:
    """Statistics of every layer; a routing of no tokens gives zeros, and counts all experts as dead."""
    routing = routing.detach()
    load = routing.assignments / routing.assignments.sum(dim=-1, keepdim=True).clamp(min=1)
    return RoutingStatistics(
        load=load,
        entropy=routing.entropy / routing.tokens.clamp(min=1),
        max_violation=(load.amax(dim=-1) * load.shape[-1] - 1).clamp(min=0),
        dead_experts=(routing.assignments == 0).sum(dim=-1),
    )
