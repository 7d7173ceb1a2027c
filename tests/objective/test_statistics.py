import math

import pytest
import torch

from olmoe_ft.objective import (
    RouterObjective,
    Routing,
    agreement,
    chosen_experts,
    load_balancing_loss,
    router_z_loss,
    routing_statistics,
)


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


def test_agreement_by_hand():
    """Two tokens, K = 2. Layer 0: {0, 1} twice, in another order: 1. Layer 1: {0, 1} and {1, 2}, {2, 3} twice: 3/4."""
    before = torch.tensor([[[0, 1], [0, 1]], [[0, 1], [2, 3]]])
    after = torch.tensor([[[1, 0], [0, 1]], [[1, 2], [3, 2]]])
    assert agreement(before, after).tolist() == [1.0, 0.75]
    assert torch.equal(agreement(after, before), agreement(before, after))


def test_unrelated_routers_agree_on_k_of_e():
    """A choice of K among E is met by a share K / E of an unrelated one: 4 / 16, here over 20,000 tokens."""
    before, after = (chosen_experts([torch.randn(20_000, 16)], 4) for _ in range(2))
    assert agreement(before, after).item() == pytest.approx(4 / 16, abs=0.005)
    assert agreement(before, before).item() == 1


def test_choices_of_other_tokens_are_not_compared():
    with pytest.raises(ValueError, match=r"\(1, 3, 2\) and \(1, 4, 2\)"):
        agreement(torch.zeros(1, 3, 2), torch.zeros(1, 4, 2))


def test_statistics_of_saved_logits_counted_one_by_one():
    """An independent count, token by token in plain Python: load, entropy, busiest expert, dead experts."""
    torch.manual_seed(5)
    logits = torch.randn(40, 12) * 3 - torch.arange(12) * 1.5  # the last ones are hardly chosen
    mask = torch.rand(40) > 0.25
    counts, entropy = [0] * 12, 0.0
    for row, counted in zip(logits.tolist(), mask.tolist(), strict=True):
        if counted:
            for expert in sorted(range(12), key=lambda expert: -row[expert])[:3]:
                counts[expert] += 1
            weights = [math.exp(value) for value in row]
            entropy -= sum(weight / sum(weights) * math.log(weight / sum(weights)) for weight in weights)
    statistics = routing_statistics(Routing.of([logits], 3, mask))
    assert statistics.load[0].tolist() == pytest.approx([count / sum(counts) for count in counts])
    assert statistics.entropy.item() == pytest.approx(entropy / mask.sum().item(), rel=1e-5)
    assert statistics.max_violation.item() == pytest.approx(max(counts) / (sum(counts) / 12) - 1, rel=1e-5)
    assert statistics.dead_experts.item() == counts.count(0) > 0


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
