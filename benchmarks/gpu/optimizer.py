"""Is the optimizer of bf16 weights right on this card, and is it as fast as torch's?

Its Triton kernel is to do what its twin in PyTorch does; its weights to go where AdamW in fp32 takes them.

Shapes: N weights.
"""

import statistics
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from gpu.part import Part
from gpu.rates import timed
from olmoe_ft.training.optimizer.adamw import Bf16AdamW
from olmoe_ft.training.optimizer.layout import BLOCK, Step
from olmoe_ft.training.optimizer.update import read_master, update

BETAS, EPS = (0.9, 0.999), 1e-8
RATE, TWIN_STEPS = 2e-5, 4
STEPS = 200
OFF = 0.05  # of the displacement
SLOWER = 1.2  # than torch's fused AdamW, by the bytes that each moves
READ_AND_WRITTEN = 14  # bytes of a weight, in both: it, its gradient and 4 of states; then all but the gradient


def run(part: Part) -> None:
    torch.manual_seed(0)
    part.attempt("kernel and twin", lambda: twins(part))
    for rate in (2e-5, 5e-7):
        what = f"displacement, learning rate {rate:g}"
        part.attempt(what, partial(displacement, part, what, rate), needs=3)
    part.attempt("time", lambda: speed(part), needs=3)


def gradients(part: Part, count: int) -> Callable[[], Tensor]:
    """Of one step after the other: a mean of its own for each weight and three times as much noise; 0 for the last."""
    means = torch.randn(count, device=part.device)
    sizes = torch.logspace(-4, -1, count, device=part.device)[torch.randperm(count, device=part.device)]
    sizes[-count // 16 :] = 0

    def of_step() -> Tensor:
        return (sizes * (means + 3 * torch.randn(count, device=part.device))).bfloat16()

    return of_step


def twins(part: Part) -> None:
    """Steps from the same bits, of sizes that no block divides. The kernel's roots and quotients are a GPU's fast ones:
    a weight may differ by 2 last bits and what such an error of the step makes of it, and one in a thousand of the
    moments, which lie between two codes, may take the other."""
    from olmoe_ft.training.optimizer.kernel import update as fused

    for count in (5, BLOCK, 3 * BLOCK + 7) if part.dry else (5, BLOCK, 1000 * BLOCK + 7):
        weight = (torch.randn(count, device=part.device) * 0.02).bfloat16()
        weight[: count // 2] = 1.0  # as norms are
        blocks = -(-count // BLOCK)
        zeros = [torch.zeros(count, dtype=torch.int16, device=part.device) for _ in range(2)]
        state = [weight, *zeros, torch.zeros(blocks, dtype=torch.uint8, device=part.device)]
        of_step, wrong, codes, exponents = gradients(part, count), 0, 0, 0
        for number in range(1, 1 + TWIN_STEPS):
            other, coming, step = [kept.clone() for kept in state], of_step(), Step.of(number, RATE, BETAS, EPS, 0.01)
            update(*state, coming, step)
            fused(*other, coming, step)
            exact, found = read_master(*state[:2]), read_master(*other[:2])
            same = state[2] == other[2]
            off = (found - exact).abs() > 2**-22 * exact.abs() + 2**-16 * RATE
            wrong, codes = wrong + int((off & same).sum()), codes + int((~same).sum())
            exponents += int((state[3] != other[3]).sum())
        right = not wrong and max(codes, exponents) <= TWIN_STEPS * count / 1000
        figures = {"wrong_weights": wrong, "other_moments": codes, "other_exponents": exponents}
        part.report(f"kernel and twin, {count:,} weights", right, **figures)


def displacement(part: Part, what: str, rate: float) -> None:
    """Where the fp32 word of each weight has gone, beside torch's AdamW in fp32 on the same gradients."""
    count = 2**12 if part.dry else 2**22
    start = (torch.randn(count, device=part.device) * 0.02).bfloat16()
    start[::64] = 1.0
    ours, exact = nn.Parameter(start.clone()), nn.Parameter(start.float())
    settings = {"lr": rate, "betas": BETAS, "eps": EPS, "weight_decay": 0.0}
    optimizer, reference = Bf16AdamW([ours], **settings), torch.optim.AdamW([exact], **settings, fused=True)
    of_step = gradients(part, count)
    for _ in range(STEPS):
        ours.grad = of_step()
        exact.grad = ours.grad.float()
        optimizer.step()
        reference.step()
    expected = exact.detach().double() - start.double()
    off = (optimizer.master(ours).double() - start.double() - expected).norm() / expected.norm()
    rounded = exact.detach().bfloat16()
    figures = {"error": round(off.item(), 4), "moved": round((ours != start).float().mean().item(), 4)}
    equal = (ours == rounded).float().mean().item()  # to what an fp32 master would show the network
    part.report(what, off.item() <= OFF, **figures, as_rounded=round(equal, 4))


def speed(part: Part) -> None:
    """A step over weights that no cache holds, taking turns with torch's fused AdamW on bf16 weights and moments."""
    count = 2**16 if part.dry else 2**28
    weight = nn.Parameter((torch.randn(count, device=part.device) * 0.02).bfloat16())
    weight.grad = torch.randn(count, device=part.device).bfloat16()
    optimizers = {"ours": Bf16AdamW([weight], lr=1e-5), "torch": torch.optim.AdamW([weight], lr=1e-5, fused=True)}
    times: dict[str, list[float]] = {name: [] for name in optimizers}
    for _ in range(3 if part.dry else 12):
        for name, optimizer in optimizers.items():
            times[name].append(timed(part, optimizer.step))
    medians = {name: statistics.median(taken[2:]) for name, taken in times.items()}  # the first ones compile
    ratio = medians["ours"] / medians["torch"]
    states = optimizers["ours"].state[weight].values()
    kept = sum(state.nbytes for state in states if isinstance(state, Tensor)) / count
    figures = {f"{name}_ms": round(taken, 3) for name, taken in medians.items()}
    figures |= {f"{name}_tb_s": round(READ_AND_WRITTEN * count / taken / 1e9, 2) for name, taken in medians.items()}
    right = None if part.dry else ratio <= SLOWER
    part.report("time beside torch's fused AdamW", right, ratio=round(ratio, 3), state_bytes=round(kept, 3), **figures)
