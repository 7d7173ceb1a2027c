import math

import pytest
import torch

from olmoe_ft.objective import RouterObjective, Routing, load_balancing_loss, router_z_loss, routing_statistics


def test_statistics_by_hand():
    """Three tokens, E = 4, k = 1, all sure of themselves: experts 0, 0 and 2.

    Load (2/3, 0, 1/3, 0); the mean is 1/4, so the busiest stands at (2/3)/(1/4) - 1 = 5/3; two experts are dead; a sure
    router has entropy 0.
    """
    logits = torch.zeros(3, 4)
    logits[0, 0] = logits[1, 0] = logits[2, 2] = 40.0
    statistics = routing_statistics(Routing.of([logits], 1))
    torch.testing.assert_close(statistics.load, torch.tensor([[2 / 3, 0, 1 / 3, 0]]))
    assert statistics.max_violation.item() == pytest.approx(5 / 3, abs=1e-6)
    assert statistics.dead_experts.tolist() == [2]
    assert statistics.entropy.item() == pytest.approx(0, abs=1e-6)


def test_a_router_that_knows_nothing_has_entropy_ln_e():
    statistics = routing_statistics(Routing.of([torch.zeros(7, 16)], 4))
    assert statistics.entropy.item() == pytest.approx(math.log(16), abs=1e-6)


def test_routings_of_parts_add_up_to_the_routing_of_all():
    torch.manual_seed(0)
    logits = [torch.randn(10, 8) for _ in range(3)]
    mask = torch.tensor([1, 1, 0, 1, 1, 1, 0, 1, 1, 1])
    whole = Routing.of(logits, 2, mask)
    parts = Routing.of([x[:4] for x in logits], 2, mask[:4]) + Routing.of([x[4:] for x in logits], 2, mask[4:])
    for name in Routing.__dataclass_fields__:
        torch.testing.assert_close(getattr(parts, name), getattr(whole, name))


def test_the_objective_is_the_weighted_sum_and_the_total_divides_by_the_micro_batches():
    torch.manual_seed(0)
    logits = [torch.randn(10, 8, requires_grad=True) for _ in range(2)]
    objective = RouterObjective(load_balancing_coef=0.5, z_loss_coef=0.25)
    routing = Routing.of(logits, 2)
    terms = objective.terms(routing)
    expected = 0.5 * load_balancing_loss(logits, 2) + 0.25 * router_z_loss(logits)
    torch.testing.assert_close(terms.loss, expected)
    assert terms.loss.requires_grad and not routing.detach().probabilities.requires_grad
    torch.testing.assert_close(objective.total(torch.tensor(3.0), terms, 4), 3.0 + expected / 4)
