"""The Triton kernels beside their twins in PyTorch; without a GPU in Triton's interpreter (tests/conftest.py)."""

import os
import subprocess
import sys
from collections import Counter

import pytest
import torch
from support import SUPPORT
from support.networks import ours
from torch.nn.functional import silu

from olmoe_ft.model import norm, rope
from olmoe_ft.model.experts import activation as gated
from olmoe_ft.model.experts import dispatch as routes
from olmoe_ft.model.kernels import combine, rotate, swiglu
from olmoe_ft.model.kernels import norm as fused_norm

pytest.importorskip("triton", reason="Triton is made for Linux alone")
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
DTYPES = [(torch.float32, 1e-5), (torch.bfloat16, 2e-2)]
NETWORK_KERNELS = [
    (swiglu, "swiglu"),
    (swiglu, "swiglu_backward"),
    (combine, "combine"),
    (fused_norm, "rms_norm"),
    (fused_norm, "rms_norm_backward"),
    (rotate, "rotate"),
]


def assert_close(actual, expected, tolerance: float) -> None:
    """In bf16 two steps of a number's last bit are allowed: the interpreter cuts off where GPUs round."""
    torch.testing.assert_close(actual, expected, atol=tolerance, rtol=0 if tolerance < 1e-3 else 2**-6)


def drawn(dtype: torch.dtype, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, device=DEVICE).to(dtype)


@pytest.mark.parametrize(("dtype", "tolerance"), DTYPES)
@pytest.mark.parametrize(("rows", "width"), [(7, 24), (1, 1), (0, 8), (3, 1030)])
def test_swiglu_and_its_backward(dtype, tolerance, rows, width):
    gate_up, gradient, weights = drawn(dtype, rows, 2 * width), drawn(dtype, rows, width), drawn(dtype, rows)
    exact = gate_up.double().requires_grad_()
    by = weights.double().requires_grad_()
    product = silu(exact[:, :width]) * exact[:, width:]
    (product * by[:, None] * gradient.double()).sum().backward()
    assert_close(swiglu.swiglu(gate_up).double(), product.detach(), tolerance)
    weighted, to_gate_up, to_weights = swiglu.swiglu_backward(gate_up, gradient, weights)
    assert_close(weighted.double(), (product * by[:, None]).detach(), tolerance)
    assert_close(to_gate_up.double(), exact.grad, 2 * tolerance)
    assert_close(to_weights.double(), by.grad, 5 * tolerance)


@pytest.mark.parametrize(("dtype", "tolerance"), DTYPES)
@pytest.mark.parametrize(("tokens", "per_token", "hidden"), [(5, 3, 40), (1, 1, 1), (0, 2, 8), (2, 8, 1030)])
def test_combination(dtype, tolerance, tokens, per_token, hidden):
    rows, place = (
        drawn(dtype, tokens * per_token, hidden),
        torch.randperm(tokens * per_token, device=DEVICE).view(tokens, per_token),
    )
    weights = drawn(dtype, tokens, per_token)
    for by in (weights, None):
        each = rows[place] if by is None else rows[place] * by[..., None]
        assert_close(combine.combine(rows, place, by), each.sum(1), 2 * tolerance)  # eight roundings


@pytest.mark.parametrize(("dtype", "tolerance"), DTYPES)
@pytest.mark.parametrize(("rows", "hidden"), [(9, 40), (1, 1), (0, 8), (30, 17)])
def test_norm_and_its_backward(monkeypatch, dtype, tolerance, rows, hidden):
    """Of 7 programs each has several rows, or not every one has any."""
    monkeypatch.setattr(norm, "use_triton", lambda x: False)
    monkeypatch.setattr(fused_norm, "PROGRAMS", 7)
    x, weight, gradient = drawn(dtype, rows, hidden), drawn(dtype, hidden), drawn(dtype, rows, hidden)
    y, scale = fused_norm.rms_norm(x, weight, 1e-5)
    plain = norm.OlmoeRMSNorm(hidden, 1e-5).to(DEVICE, dtype)
    plain.weight.data.copy_(weight)
    x.requires_grad_()
    expected = plain(x)
    assert_close(y, expected, tolerance)
    expected.backward(gradient)
    to_x, to_weight = fused_norm.rms_norm_backward(gradient, x.detach(), weight, scale)
    assert_close(to_x, x.grad, 2 * tolerance)
    assert_close(to_weight, plain.weight.grad, 20 * tolerance)


@pytest.mark.parametrize(("dtype", "tolerance"), DTYPES)
def test_rotation_and_back(monkeypatch, dtype, tolerance):
    monkeypatch.setattr(rope, "use_triton", lambda x: False)
    x, angles = drawn(dtype, 1, 3, 5, 8), torch.randn(1, 5, 4, device=DEVICE).repeat(1, 1, 2)
    cos, sin = angles.cos().to(dtype), angles.sin().to(dtype)
    flat = x.transpose(1, 2).flatten(0, 1).contiguous()
    turned = rotate.rotate(flat, cos[0], sin[0])
    assert_close(turned.unflatten(0, (1, 5)).transpose(1, 2), rope.rotate(x, cos, sin), tolerance)
    assert_close(rotate.rotate(turned, cos[0], sin[0], back=True), flat, tolerance)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 2e-5), (torch.bfloat16, 6e-2)])
def test_the_network_with_kernels_is_the_network_without(monkeypatch, dtype, tolerance):
    """Logits and every gradient, packed rows, gradient checkpointing as in training; every kernel takes part."""
    model = ours(intermediate_size=16, num_key_value_heads=2).to(DEVICE, dtype).train()
    model.gradient_checkpointing_enable({"use_reentrant": False})
    ids = torch.randint(3, 97, (2, 9), device=DEVICE)
    positions = torch.cat([torch.arange(5), torch.arange(4)]).repeat(2, 1).to(DEVICE)
    results, called = [], set()
    for module, name in NETWORK_KERNELS:
        kernel = getattr(module, name)
        noted = lambda *given, name=name, kernel=kernel: called.add(name) or kernel(*given)  # noqa: E731
        monkeypatch.setattr(module, name, noted)
    for fused in (False, True):
        for module in (gated, norm, rope, routes):
            monkeypatch.setattr(module, "use_triton", lambda x, fused=fused: fused)
        model.zero_grad()
        output = model(ids, position_ids=positions, labels=ids, use_cache=False)
        output.loss.backward()
        gradients = {name: parameter.grad.clone() for name, parameter in model.named_parameters()}
        results.append((output.logits.detach(), gradients))
        sums = {"combine"} if DEVICE == "cpu" and dtype == torch.float32 else set()  # PyTorch's are better there
        assert called == ({name for _, name in NETWORK_KERNELS} - sums if fused else set())
    assert_close(results[1], results[0], tolerance)


@pytest.mark.parametrize("kept", [False, True])
def test_swiglus_backward_takes_the_place_of_what_is_read_no_more(monkeypatch, kept):
    """The gradient's always, that of `gate_up` unless the graph is kept for another backward pass."""
    monkeypatch.setattr(gated, "use_triton", lambda x: True)
    places, backward = [], swiglu.swiglu_backward

    def noted(gate_up, gradient, *given):
        results = backward(gate_up, gradient, *given)
        places.append([result.data_ptr() for result in (gradient, results[0], gate_up, results[1])])
        return results

    monkeypatch.setattr(swiglu, "swiglu_backward", noted)
    module = ours(num_hidden_layers=1).to(DEVICE).model.layers[0].mlp
    x = torch.randn(1, 9, 32, device=DEVICE)
    module(x)[0].square().sum().backward(retain_graph=True)
    expected = {name: weight.grad.clone() for name, weight in module.named_parameters()}
    module.zero_grad()
    y = module(x)[0].square().sum()
    y.backward(retain_graph=kept)
    (gradient, weighted, gate_up, to_gate_up) = places[-1]
    assert gradient == weighted and (gate_up == to_gate_up) == (not kept)
    for name, weight in module.named_parameters():
        assert torch.equal(weight.grad, expected[name])
    if kept:
        y.backward()
        for name, weight in module.named_parameters():
            assert_close(weight.grad, 2 * expected[name], 1e-5)


@pytest.mark.parametrize(
    "cards", [("80", "90", "120"), pytest.param(("86", "89"), marks=pytest.mark.slow)], ids=" ".join
)
def test_every_kernel_compiles_for_gpus(cards):
    """To machine code, with no GPU there: types, shapes and shared memory are right, not only values."""
    script = SUPPORT / "compile_kernels.py"
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    command = [sys.executable, str(script), *cards]
    done = subprocess.run(command, capture_output=True, text=True, timeout=500, env=environment)
    assert done.returncode == 0, done.stderr[-2000:]
    compiled = Counter(line.split()[0] for line in done.stdout.splitlines())
    assert compiled == {f"sm_{card}": 15 for card in cards}
