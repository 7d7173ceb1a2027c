"""The router's part of the training objective: pure functions from router logits to scalars.

`routing` sums what a router did over tokens, `losses` and `statistics` are formulas over those sums, `total` adds the
weighted losses to the task loss.
"""

from olmoe_ft.objective.losses import load_balancing_loss, router_z_loss
from olmoe_ft.objective.routing import Counts, Routing
from olmoe_ft.objective.statistics import RoutingStatistics, agreement, chosen_experts, routing_statistics
from olmoe_ft.objective.total import RouterObjective, RouterTerms

__all__ = [
    "Counts",
    "RouterObjective",
    "RouterTerms",
    "Routing",
    "RoutingStatistics",
    "agreement",
    "chosen_experts",
    "load_balancing_loss",
    "router_z_loss",
    "routing_statistics",
]
