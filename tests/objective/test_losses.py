import math

import pytest
import torch
from transformers.models.olmoe.modeling_olmoe import load_balancing_loss_func

from olmoe_ft.objective import Counts, Routing, load_balancing_loss, router_z_loss
from olmoe_ft.objective.losses import balance, z

BIG = 30.0  # a logit that takes all probability: exp(-30) is 1e-13


def collapsed_on(experts: list[int], tokens: int, num_experts: int) -> torch.Tensor:
    logits = torch.zeros(tokens, num_experts)
    logits[:, experts] = BIG
    return logits


def rotating(num_experts: int, k: int) -> torch.Tensor:
    """Token t prefers experts t, t+1, … t+k-1 equally: every expert gets the same load and probability."""
    logits = torch.zeros(num_experts, num_experts)
    for token in range(num_experts):
        logits[token, [(token + slot) % num_experts for slot in range(k)]] = BIG
    return logits


@pytest.mark.parametrize("scope", ["layer", "pooled"])
@pytest.mark.parametrize(("num_experts", "k"), [(4, 1), (8, 2), (64, 8)])
def test_balance_is_one(num_experts, k, scope):
    """f_e = k·(1/E)/k = 1/E and P_e = 1/E, so E · sum_e 1/E² = 1."""
    logits = [rotating(num_experts, k)] * 3
    assert load_balancing_loss(logits, k, scope=scope).item() == pytest.approx(1.0, abs=1e-6)


@pytest.mark.parametrize(("num_experts", "k"), [(4, 1), (8, 2), (64, 8)])
def test_collapse_onto_the_same_experts_is_experts_over_k(num_experts, k):
    """f_e = 1/k and P_e = 1/k on k experts, so E · k · 1/k² = E/k."""
    logits = [collapsed_on(list(range(k)), 10, num_experts)] * 2
    assert load_balancing_loss(logits, k).item() == pytest.approx(num_experts / k, rel=1e-5)


def test_pooling_hides_a_collapse_of_every_layer_onto_different_experts():
    """8 layers, 64 experts, 8 used: each layer alone is at E/k = 8, all together look perfectly balanced."""
    logits = [collapsed_on(list(range(8 * layer, 8 * layer + 8)), 5, 64) for layer in range(8)]
    assert load_balancing_loss(logits, 8, scope="layer").item() == pytest.approx(8.0, rel=1e-5)
    assert load_balancing_loss(logits, 8, scope="pooled").item() == pytest.approx(1.0, rel=1e-5)


@pytest.mark.parametrize("masked", [False, True])
def test_pooled_is_transformers_value_over_k(masked):
    """transformers adds up the K slots of f where we average them, so it is K times larger; otherwise the same."""
    torch.manual_seed(3)
    k, ours = 3, [torch.randn(2 * 5, 8, requires_grad=True) for _ in range(4)]
    theirs = [logits.detach().clone().requires_grad_() for logits in ours]
    mask = (torch.rand(2, 5) > 0.3).long() if masked else None
    value = load_balancing_loss(ours, k, None if mask is None else mask.flatten(), scope="pooled")
    expected = load_balancing_loss_func(tuple(theirs), 8, k, mask) / k
    torch.testing.assert_close(value, expected)
    for mine, other in zip(torch.autograd.grad(value, ours), torch.autograd.grad(expected, theirs), strict=True):
        torch.testing.assert_close(mine, other)


@pytest.mark.parametrize("scope", ["layer", "pooled"])
@pytest.mark.parametrize("cuts", [[6, 6], [2, 10], [3, 0, 9], [5, 3, 4]])
def test_parts_of_a_group_have_the_groups_losses_as_their_mean(cuts, scope):
    """However a group's tokens are spread, an empty part included: values and gradients of the whole.

    With n parts the mean of their losses is (1/n) sum_r E sum_e f_e p_re / (T/n) = E sum_e f_e sum_r p_re / T.
    """
    torch.manual_seed(4)
    logits = [torch.randn(12, 8, requires_grad=True) for _ in range(2)]
    mask = torch.tensor([1, 1, 0, 1, 1, 1, 1, 0, 1, 1, 1, 1])
    parts = [
        Routing.of(pieces, 2, part)
        for *pieces, part in zip(*(layer.split(cuts) for layer in logits), mask.split(cuts), strict=True)
    ]
    assignments = sum(part.assignments for part in parts)
    counts = Counts(assignments, sum(part.tokens for part in parts) / len(parts))
    for split, whole in [
        (lambda part: balance(part, scope, counts), load_balancing_loss(logits, 2, mask, scope)),
        (lambda part: z(part, counts), router_z_loss(logits, mask)),
    ]:
        mean = sum(split(part) for part in parts) / len(parts)
        torch.testing.assert_close(mean, whole)
        for mine, other in zip(torch.autograd.grad(mean, logits), torch.autograd.grad(whole, logits), strict=True):
            torch.testing.assert_close(mine, other, rtol=1e-5, atol=1e-7)


def test_a_value_by_hand():
    """Two tokens, E = 2, k = 1, logits (ln 3, 0) and (0, ln 1): softmax (3/4, 1/4) and (1/2, 1/2).

    Ties go to the first expert, so both tokens choose expert 0: f = (1, 0). P = (5/8, 3/8). Loss 2 · 5/8 = 5/4.
    z: logsumexp is ln 4 and ln 2, so (ln² 4 + ln² 2) / 2.
    """
    logits = [torch.tensor([[math.log(3.0), 0.0], [1e-6, 0.0]])]
    assert load_balancing_loss(logits, 1).item() == pytest.approx(5 / 4, abs=1e-5)
    assert router_z_loss(logits).item() == pytest.approx((math.log(4) ** 2 + math.log(2) ** 2) / 2, abs=1e-5)


@pytest.mark.parametrize("loss", [lambda logits, mask: load_balancing_loss(logits, 2, mask), router_z_loss])
def test_masked_tokens_change_neither_value_nor_gradient(loss):
    torch.manual_seed(0)
    kept, dropped = torch.randn(6, 8, requires_grad=True), torch.randn(4, 8, requires_grad=True)
    alone = loss([kept], None)
    (expected,) = torch.autograd.grad(alone, kept)
    mask = torch.tensor([1] * 6 + [0] * 4)
    masked = loss([torch.cat([kept, dropped])], mask)
    gradient, no_gradient = torch.autograd.grad(masked, [kept, dropped])
    torch.testing.assert_close(masked, alone)
    torch.testing.assert_close(gradient, expected)
    assert no_gradient.abs().max() == 0


def test_nothing_counts_gives_zero():
    logits, mask = [torch.randn(3, 4)], torch.zeros(3)
    assert load_balancing_loss(logits, 2, mask).item() == 0
    assert router_z_loss(logits, mask).item() == 0


def test_gradient_of_the_z_loss_by_hand():
    """d/dx_e mean_t lse_t² = 2 · lse_t · softmax_e / T."""
    torch.manual_seed(1)
    logits = torch.randn(5, 4, requires_grad=True)
    (gradient,) = torch.autograd.grad(router_z_loss([logits]), logits)
    expected = 2 * logits.logsumexp(-1, keepdim=True) * logits.softmax(-1) / 5
    torch.testing.assert_close(gradient, expected)


def test_bf16_logits_are_computed_in_fp32():
    torch.manual_seed(2)
    logits = (torch.randn(50, 16) * 5).bfloat16()
    for loss in (load_balancing_loss([logits], 4), router_z_loss([logits])):
        assert loss.dtype == torch.float32
    torch.testing.assert_close(router_z_loss([logits]), logits.double().logsumexp(-1).square().mean().float())


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: load_balancing_loss([], 2), "empty"),
        (lambda: load_balancing_loss([torch.zeros(3, 4)], 5), "num_experts_per_tok: found 5"),
        (lambda: load_balancing_loss([torch.zeros(3, 4)], 2, torch.ones(4)), r"\(4,\)"),
        (lambda: router_z_loss([torch.zeros(3, 4)], torch.ones(3, 1)), r"\(3, 1\)"),
        (lambda: load_balancing_loss([torch.zeros(3, 4)], 2, scope="all"), "scope: found 'all'"),
    ],
)
def test_wrong_arguments_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
