"""Recomputing layers in the backward pass changes nothing: not the loss, not one gradient, the router's included."""

import pytest
import torch
from support.networks import assert_close, ours

from olmoe_ft.model.experts.projection import Projection

IDS = torch.randint(3, 97, (2, 20), generator=torch.Generator().manual_seed(1))
MASK = torch.ones_like(IDS).index_fill(1, torch.arange(17, 20), 0)
POSITIONS = torch.cat([torch.arange(12), torch.arange(8)]).repeat(2, 1)


@pytest.mark.parametrize("arguments", [{}, {"attention_mask": MASK}, {"position_ids": POSITIONS}], ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("reentrant", [True, False])
def test_loss_and_every_gradient_stay(reentrant, dtype, arguments):
    """The pooled balance has a gradient of its own on the gate; its weight of 1 makes it count."""
    model = ours(router_aux_loss_coef=1.0, attention_bias=True).to(dtype).train()
    results = []
    for checkpointing in (False, True):
        if checkpointing:
            model.gradient_checkpointing_enable({"use_reentrant": reentrant})
        model.zero_grad()
        output = model(IDS, labels=IDS, output_router_logits=True, **arguments)
        assert output.aux_loss.requires_grad
        output.loss.backward()
        results.append((output.loss.detach(), {name: value.grad for name, value in model.named_parameters()}))
    assert_close(results[1], results[0], 1e-6 if dtype == torch.float32 else 0.0)


@pytest.mark.parametrize("reentrant", [True, False])
def test_the_gates_gradient_of_the_balance_alone_survives(reentrant):
    model = ours().train()
    model.gradient_checkpointing_enable({"use_reentrant": reentrant})
    model(IDS, output_router_logits=True).aux_loss.backward()
    for layer in model.model.layers:
        assert layer.mlp.gate.weight.grad.abs().max() > 1e-6


@pytest.mark.parametrize(
    ("kwargs", "products"), [(None, 2), ({"use_reentrant": False}, 3), ({"use_reentrant": True}, 4)]
)
def test_the_experts_second_product_is_not_made_again(monkeypatch, kwargs, products):
    """A layer multiplies with `gate_up` and `down`; made anew, up to what it keeps, which is before `down`.

    Reentrant checkpointing makes all anew.
    """
    model, calls = ours().train(), []
    forward = Projection.forward
    monkeypatch.setattr(Projection, "forward", lambda *given: calls.append(given) or forward(*given))
    if kwargs is not None:
        model.gradient_checkpointing_enable(kwargs)
    model(IDS, labels=IDS).loss.backward()
    assert len(calls) == products * len(model.model.layers)
