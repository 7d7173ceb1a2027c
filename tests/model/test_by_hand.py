"""The passes of norms and rotation that are written by hand, beside what autograd makes of the same formulas."""

import pytest
import torch

from olmoe_ft.model import rope
from olmoe_ft.model.norm import OlmoeRMSNorm, normalise

DTYPES = [(torch.float32, 1e-6), (torch.bfloat16, 2e-2)]


@pytest.mark.parametrize(("dtype", "tolerance"), DTYPES)
@pytest.mark.parametrize("trained", [True, False])
def test_norm(dtype, tolerance, trained):
    norm = OlmoeRMSNorm(24, 1e-5).to(dtype)
    norm.weight.data = torch.randn(24).to(dtype)
    norm.requires_grad_(trained)
    x, gradient = torch.randn(2, 5, 24).to(dtype).requires_grad_(), torch.randn(2, 5, 24).to(dtype)
    inputs = [x, norm.weight] if trained else [x]
    expected, actual = normalise(x, norm.weight, norm.eps)[0], norm(x)
    assert torch.equal(actual, expected)
    for own, autograds in zip(*(torch.autograd.grad(y, inputs, gradient) for y in (actual, expected)), strict=True):
        assert own.dtype == autograds.dtype == dtype
        torch.testing.assert_close(own, autograds, atol=tolerance, rtol=tolerance)


def test_norm_of_zeros_has_a_finite_gradient():
    """1 / sqrt(eps), eps = 1e-4: a row of zeros is divided by 1e-2, and so is its gradient."""
    x = torch.zeros(1, 8, requires_grad=True)
    OlmoeRMSNorm(8, 1e-4)(x).sum().backward()
    torch.testing.assert_close(x.grad, torch.full((1, 8), 100.0))


@pytest.mark.parametrize("rows", [1, 2])
def test_rotation(monkeypatch, rows):
    """The formula is what is traced; positions are given for all rows at once or for each."""
    angles = torch.randn(rows, 5, 4).repeat(1, 1, 2)
    x = torch.randn(2, 5, 3, 8).transpose(1, 2).requires_grad_()  # (B, N, S, D), in memory by token
    gradient = torch.randn(2, 3, 5, 8)
    actual = rope.rotate(x, angles.cos(), angles.sin())
    assert actual.stride() == x.stride()
    monkeypatch.setattr(rope, "being_traced", lambda: True)
    expected = rope.rotate(x, angles.cos(), angles.sin())
    torch.testing.assert_close(actual, expected, atol=1e-6, rtol=0)
    gradients = [torch.autograd.grad(y, x, gradient)[0] for y in (actual, expected)]
    torch.testing.assert_close(*gradients, atol=1e-6, rtol=0)
