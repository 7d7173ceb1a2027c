"""Experts with few rows each, without gradients, beside the plain loop."""

import pytest
import torch
from support.networks import assert_close, ours

from olmoe_ft.model.experts import autograd, few_rows


@pytest.mark.parametrize("favourite", [0, 15, None])
@pytest.mark.parametrize("tokens", [1, 2, 5, 30, 64])
@pytest.mark.parametrize("large", [False, True])
@torch.no_grad()
def test_the_loops_outputs(tokens, favourite, large, monkeypatch):
    """Experts without rows, with one (the last of all rows too), a few, and more than `FEW`."""
    monkeypatch.setattr(few_rows, "WORTH_THREADS", 1 if large else 2**17)
    layer = ours(num_experts=16, num_experts_per_tok=3, experts_implementation="eager").model.layers[0].mlp.experts
    x, scores = torch.randn(tokens, 32), torch.rand(tokens, 16)
    if favourite is not None:
        scores[:, favourite] += 1 + torch.arange(tokens) % 2
    weights, chosen = scores.topk(3)
    sizes = chosen.flatten().bincount(minlength=16)
    if tokens < 10:
        assert {0, 1} <= {*sizes.tolist()}
    elif favourite is not None:
        assert sizes.max() > few_rows.FEW
    found = few_rows.few_rows(x, chosen, weights, layer.gate_up_proj, layer.down_proj, layer.act_fn)
    assert_close(found, layer(x, chosen, weights))


def test_when_it_is_used(monkeypatch):
    """In evaluation without gradients and adapters, in fp32: one token, or large matrices and few rows."""
    called = []
    real = autograd.few_rows
    monkeypatch.setattr(autograd, "few_rows", lambda x, *rest: called.append(len(x)) or real(x, *rest))
    model = ours()
    five, fifty = torch.zeros(1, 5, dtype=torch.long), torch.zeros(1, 50, dtype=torch.long)

    def calls(ids: torch.Tensor) -> int:
        called.clear()
        model(ids, use_cache=False)
        return len(called)

    with torch.no_grad():
        assert (calls(five[:, :1]), calls(five)) == (3, 0)  # a layer each
        monkeypatch.setattr(few_rows, "WORTH_THREADS", 1)
        # eight experts with eight rows: 32 tokens with two each
        assert (calls(five), calls(fifty[:, :32]), calls(fifty[:, :33])) == (3, 3, 0)
        assert model.train() and calls(five) == 0
        assert model.eval().to(torch.bfloat16) and calls(five) == 0
    assert model.float() and calls(five) == 0
