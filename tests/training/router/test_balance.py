"""Whose tokens are balanced together, on one process; on several: tests/end_to_end/test_router_gradients.py."""

import pytest
import torch
from accelerate import Accelerator

from olmoe_ft.objective import Routing
from olmoe_ft.training.router.balance import BalanceGroup


@pytest.fixture
def micro_batches() -> list[Routing]:
    return [Routing.of([torch.randn(tokens, 4) for _ in range(2)], 2) for tokens in (3, 5, 4)]


@pytest.fixture
def accelerator():
    accelerator = Accelerator(cpu=True)
    yield accelerator
    accelerator.gradient_state._set_sync_gradients(True)


@pytest.mark.parametrize("over", ["micro_batch", "ranks"])
def test_on_one_process_a_micro_batch_is_its_own_group(accelerator, micro_batches, over):
    group = BalanceGroup(over, accelerator)
    for routing in micro_batches:
        counts = group.counts(routing)
        assert torch.equal(counts.assignments, routing.assignments) and counts.tokens == routing.tokens


def test_accumulation_adds_up_within_a_step_and_starts_again_with_the_next(accelerator, micro_batches):
    group = BalanceGroup("accumulation", accelerator)
    first, second, third = micro_batches
    for routing, last, expected in [
        (first, False, first.assignments),
        (second, True, first.assignments + second.assignments),
        (third, False, third.assignments),
        (first, True, third.assignments + first.assignments),
        (second, True, second.assignments),
    ]:
        accelerator.gradient_state._set_sync_gradients(last)
        counts = group.counts(routing)
        assert torch.equal(counts.assignments, expected)
        assert counts.tokens == routing.tokens  # probabilities are those of the micro-batch alone
        assert not counts.assignments.requires_grad
