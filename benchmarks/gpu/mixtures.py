"""Are the experts of a layer right as a whole, with and without adapters? Output and every gradient, beside fp64.

Shapes: T tokens, H hidden, I intermediate, E experts, K experts per token, r rank.
"""

from functools import partial
from types import SimpleNamespace

import torch
from torch import Tensor
from torch.nn.functional import silu
from transformers.activations import ACT2FN

from gpu.exact import Shapes, after_many, compare, drawn, poison, shapes
from gpu.part import Part
from olmoe_ft.model.experts.autograd import grouped_experts

SCALING = 2.0
STACKS = "gate_up_proj", "down_proj"


def run(part: Part) -> None:
    part.attempt("experts", partial(check, part, "experts", rank=0))
    part.attempt("experts with adapters", partial(check, part, "experts with adapters", rank=shapes(part).rank))


def check(part: Part, what: str, rank: int) -> None:
    """All weights trained; or, with a rank, factors alone. The second expert gets no token."""
    s = shapes(part)
    experts, weights = routed(part, s)
    inputs = {"x": drawn(part, s.tokens, s.hidden), "weights": weights}
    stacks = {
        "gate_up_proj": drawn(part, s.experts, 2 * s.inner, s.hidden, scale=s.hidden**-0.5),
        "down_proj": drawn(part, s.experts, s.hidden, s.inner, scale=s.inner**-0.5),
    }
    factors = {}
    for name, stack in stacks.items() if rank else ():
        factors[f"{name}: B"] = drawn(part, s.experts, stack.shape[1], rank, scale=rank**-0.5)
        factors[f"{name}: A"] = drawn(part, s.experts, rank, stack.shape[2], scale=stack.shape[2] ** -0.5)
    trained = inputs | (factors or stacks)
    gradient = drawn(part, s.tokens, s.hidden)
    given = {name: value.clone().requires_grad_(name in trained) for name, value in (inputs | stacks | factors).items()}
    poison(part)
    y = grouped_experts(module_of(given), given["x"], experts, given["weights"])
    found = torch.autograd.grad(y, [given[name] for name in trained], gradient)
    exact_given = {
        name: value.double().requires_grad_(name in trained) for name, value in (inputs | stacks | factors).items()
    }
    exact = plain_experts(exact_given, experts)
    expected = torch.autograd.grad(exact, [exact_given[name] for name in trained], gradient.double())
    compare(part, f"{what}: output", y.detach(), exact.detach(), after_many(exact.detach()))
    for name, one, other in zip(trained, found, expected, strict=True):
        compare(part, f"{what}: gradient of {name}", one, other, after_many(other))


def routed(part: Part, s: Shapes) -> tuple[Tensor, Tensor]:
    """(T, K) experts and their weights, as uneven as an untrained router's; the second expert is never taken."""
    logits = torch.randn(s.tokens, s.experts, device=part.device) + torch.randn(s.experts, device=part.device)
    logits[:, 1] = -torch.inf
    weights, experts = logits.softmax(dim=-1).topk(s.per_token, dim=-1)
    return experts, weights.bfloat16()


def module_of(given: dict[str, Tensor]) -> SimpleNamespace:
    """What `grouped_experts` asks of `OlmoeExperts`, and adapters as PEFT's wrappers lend them."""
    factors = {name: [(given[f"{name}: B"], given[f"{name}: A"], SCALING)] for name in STACKS if f"{name}: B" in given}
    return SimpleNamespace(act_fn=ACT2FN["silu"], low_rank_factors=factors, **{name: given[name] for name in STACKS})


def plain_experts(given: dict[str, Tensor], experts: Tensor) -> Tensor:
    """`y_t = sum_k w_tk · down_e(silu(gate_e(x_t)) · up_e(x_t))`, expert by expert, adapters folded in."""
    x = given["x"]
    y = torch.zeros_like(x)
    for expert in range(len(given["gate_up_proj"])):
        folded = [given[name][expert] for name in STACKS]
        if "gate_up_proj: B" in given:
            folded = [
                weight + SCALING * given[f"{name}: B"][expert] @ given[f"{name}: A"][expert]
                for name, weight in zip(STACKS, folded, strict=True)
            ]
        token, slot = torch.where(experts == expert)
        gate, up = (x[token] @ folded[0].t()).chunk(2, dim=-1)
        y = y.index_add(0, token, (silu(gate) * up) @ folded[1].t() * given["weights"][token, slot, None])
    return y
