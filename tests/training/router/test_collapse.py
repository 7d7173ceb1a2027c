"""A router that was driven to collapse recovers with the load balancing loss, and stays collapsed without it."""

import pytest
import torch
from support.networks import ours
from torch.nn import functional as F

from olmoe_ft.objective import RouterObjective, Routing, routing_statistics


def train(model, load_balancing_coef: float, steps: int) -> float:
    """Steps on a fixed task, the next token of one batch; returns the largest violation of balance at the end."""
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(3, 97, (8, 24), generator=generator)
    objective = RouterObjective(load_balancing_coef, z_loss_coef=0.0)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.0)
    for _ in range(steps):
        outputs = model(ids, output_router_logits=True, use_cache=False)
        task_loss = F.cross_entropy(outputs.logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten())
        routing = Routing.of(outputs.router_logits, model.config.num_experts_per_tok)
        objective.total(task_loss, objective.terms(routing)).backward()
        optimizer.step()
        optimizer.zero_grad()
    return routing_statistics(routing).max_violation.max().item()


@pytest.fixture(scope="module")
def collapsed():
    """Trained to unbalance itself, until in some layer K = 2 of E = 8 experts take everything: E / K - 1 = 3."""
    torch.manual_seed(0)
    model = ours()
    assert train(model, load_balancing_coef=-1.0, steps=150) > 2.99
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


@pytest.mark.parametrize(("load_balancing_coef", "steps"), [(0.05, 400), (0.02, 600)])
def test_it_recovers_with_the_term_on(collapsed, load_balancing_coef, steps):
    model = ours()
    model.load_state_dict(collapsed)
    assert train(model, load_balancing_coef, steps) < 1


def test_it_stays_collapsed_with_the_term_off(collapsed):
    model = ours()
    model.load_state_dict(collapsed)
    assert train(model, load_balancing_coef=0.0, steps=500) > 2.99
