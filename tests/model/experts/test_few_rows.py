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
    """Where text is generated, in fp32; large matrices with few rows, or small ones. Nowhere else: what is compared
    with a training has the training's last digits."""
    called = []
    real = autograd.few_rows
    monkeypatch.setattr(autograd, "few_rows", lambda x, *rest: called.append(len(x)) or real(x, *rest))
    model = ours()

    def calls(tokens: int) -> int:
        called.clear()
        model(torch.zeros(1, tokens, dtype=torch.long), use_cache=False)
        return len(called)

    with torch.no_grad():
        assert calls(1) == 0
    with torch.no_grad(), few_rows.generating():
        # eight experts with 48 x 32 numbers: 12,288 multiplications a token, in each of three layers
        monkeypatch.setattr(few_rows, "SMALL", 4 * 12_288)
        assert (calls(1), calls(4), calls(5)) == (3, 3, 0)
        monkeypatch.setattr(few_rows, "WORTH_THREADS", 1)
        # eight experts with eight rows: 32 tokens with two each
        assert (calls(1), calls(32), calls(33)) == (3, 3, 0)
        assert model.to(torch.bfloat16) and calls(5) == 0
        assert model.float() and calls(5) == 3
    assert calls(5) == 0


def test_adapters_packed_stacks_and_transforms_go_the_usual_way():
    """Adapters on experts are multiplied there; what has no numbers of its own, or is traced, cannot be looked at."""
    model = ours()
    experts = model.model.layers[0].mlp.experts
    x, chosen, weights = torch.randn(3, 32), torch.tensor([[0, 1], [2, 3], [4, 5]]), torch.rand(3, 2)
    with torch.no_grad():
        expected = experts(x, chosen, weights)
        with few_rows.generating():
            assert not few_rows.are_few(chosen, object())
            one_by_one = torch.vmap(lambda row, its, shares: experts(row[None], its[None], shares[None])[0])
            assert_close(one_by_one(x, chosen, weights), expected)


@torch.no_grad()
def test_evaluation_without_gradients_has_the_training_s_last_digits():
    model, ids = ours(), torch.arange(3, 9).view(1, -1)
    with torch.enable_grad():
        expected = model(ids).logits.detach()
    assert torch.equal(model(ids).logits, expected)
