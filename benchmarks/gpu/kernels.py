"""Are the Triton kernels right? Each beside fp64, with memory poisoned before.

What is allowed: a rounding for each time the kernel rounds to bf16, of what is rounded there; and for sums in fp32 what
`exact` says.

Shapes: T tokens, R rows, H hidden, I intermediate, N heads, D head size, K experts per token.
"""

import torch
from torch.nn.functional import silu

from gpu.exact import FP32, compare, drawn, poison, rounding, shapes
from gpu.part import Part


def run(part: Part) -> None:
    for what, check in {"swiglu": swiglu, "rms_norm": rms_norm, "rotate": rotate, "combine": combine}.items():
        part.attempt(what, lambda check=check: check(part))


def swiglu(part: Part) -> None:
    from olmoe_ft.model.kernels.swiglu import swiglu, swiglu_backward

    rows, width = 3 * shapes(part).tokens // 2, shapes(part).inner
    gate_up, coming, weights = drawn(part, rows, 2 * width), drawn(part, rows, width), drawn(part, rows)
    gate, up = gate_up.double().chunk(2, dim=-1)
    dh, w, sigmoid = coming.double(), weights.double()[:, None], gate.sigmoid()
    product = silu(gate) * up
    poison(part)
    compare(part, "swiglu: forward", swiglu(gate_up), product, 2.1 * rounding(part) * product.abs())
    poison(part)
    weighted, to_gate_up, to_weights = swiglu_backward(gate_up, coming, weights)
    compare(part, "swiglu: weighted product", weighted, w * product, 1.1 * rounding(part) * (w * product).abs())
    slope = sigmoid * (1 + gate * (1 - sigmoid))
    exact = torch.cat([w * dh * up * slope, w * dh * silu(gate)], dim=-1)
    # the slope is a sum of two terms that may cancel
    terms = torch.cat([(w * dh * up).abs() * sigmoid * (1 + gate.abs()), (w * dh * silu(gate)).abs()], dim=-1)
    compare(part, "swiglu: gradient", to_gate_up, exact, 1.1 * rounding(part) * exact.abs() + 16 * FP32 * terms)
    exact, terms = (dh * product).sum(dim=-1), (dh * product).abs().sum(dim=-1)
    allowed = 1.1 * rounding(part) * exact.abs() + 2 * width * FP32 * terms
    compare(part, "swiglu: gradient of the weights", to_weights, exact, allowed)


def rms_norm(part: Part) -> None:
    from olmoe_ft.model.kernels.norm import rms_norm, rms_norm_backward

    rows, width = 3 * shapes(part).tokens // 2, shapes(part).hidden
    x, weight, coming = drawn(part, rows, width), drawn(part, width), drawn(part, rows, width)
    exact_scale = torch.rsqrt(x.double().square().mean(dim=-1) + 1e-5)
    normal = x.double() * exact_scale[:, None]
    poison(part)
    y, scale = rms_norm(x, weight, 1e-5)
    exact = weight.double() * normal
    compare(part, "rms_norm: forward", y, exact, 2.1 * rounding(part) * exact.abs())
    compare(part, "rms_norm: scale", scale, exact_scale, width * FP32 * exact_scale)
    poison(part)
    to_x, to_weight = rms_norm_backward(coming, x, weight, scale)
    dy = coming.double() * weight.double()
    shared, size = (dy * normal).mean(dim=-1, keepdim=True), (dy * normal).abs().mean(dim=-1, keepdim=True)
    exact = (dy - normal * shared) * exact_scale[:, None]
    terms = (dy.abs() + normal.abs() * size) * exact_scale[:, None]
    compare(part, "rms_norm: gradient", to_x, exact, 1.1 * rounding(part) * exact.abs() + 4 * width * FP32 * terms)
    exact, terms = (coming.double() * normal).sum(dim=0), (coming.double() * normal).abs().sum(dim=0)
    allowed = 1.1 * rounding(part) * exact.abs() + 2 * (rows + width) * FP32 * terms
    compare(part, "rms_norm: gradient of the weight", to_weight, exact, allowed)


def rotate(part: Part) -> None:
    from olmoe_ft.model.kernels.rotate import rotate

    s = shapes(part)
    rows, size = 3 * s.tokens // 2, s.hidden // s.heads
    x, angles = drawn(part, rows, s.heads, size), torch.randn(rows, size // 2, device=part.device).repeat(1, 2)
    cos, sin = angles.cos().bfloat16(), angles.sin().bfloat16()
    low, high = x.double().chunk(2, dim=-1)
    c, s_ = cos.double()[:, None, : size // 2], sin.double()[:, None, : size // 2]
    sizes = torch.cat([(low * c).abs() + (high * s_).abs(), (high * c).abs() + (low * s_).abs()], dim=-1)
    for what, sign in (("rotate", 1), ("rotate: back", -1)):
        exact = torch.cat([low * c - sign * high * s_, high * c + sign * low * s_], dim=-1)
        poison(part)
        compare(part, what, rotate(x, cos, sin, back=sign < 0), exact, 1.1 * rounding(part) * (sizes + exact.abs()))


def combine(part: Part) -> None:
    from olmoe_ft.model.kernels.combine import combine

    s = shapes(part)
    rows = drawn(part, s.tokens * s.per_token, s.hidden)
    place = torch.randperm(len(rows), device=part.device).view(s.tokens, s.per_token)
    weights = drawn(part, s.tokens, s.per_token)
    for what, given in (("combine: weighted", weights), ("combine: plain", None)):
        each = rows.double()[place] * (1.0 if given is None else given.double()[..., None])
        exact, sizes = each.sum(dim=1), each.abs().sum(dim=1)
        rounded = 0.0 if given is None else rounding(part)  # a weighted row is rounded before the sum
        poison(part)
        allowed = 1.1 * rounding(part) * exact.abs() + (1.1 * rounded + s.per_token * FP32) * sizes
        compare(part, what, combine(rows, place, given), exact, allowed)
