"""The experts forward alone for a few tokens on a CPU, as when text is generated. What costs is not the arithmetic.

Of large matrices it is reading them. MKL does so two to three times as fast where the matrix is the left factor and the
rows, laid out one by one, are the columns of the right one: `W @ rows.T`. With a single column it uses one thread. So a
single row takes the next row along, whose column is computed again for its own expert. From some 10 rows on
`rows @ W.T` is faster. (GB/s of 64 matrices of 2 MiB in turn, 2 cores: 15, 42, 37, 20, 9 and 15, 11, 10, 12, 12 for 1,
2, 4, 8, 12 rows.)

Of small matrices it is the calls. All experts at all tokens are two calls, whatever was chosen: a third to a half of
the time of `F.grouped_mm` for the default recipe's network, up to some 48 tokens.

Shapes: T tokens, H hidden, I intermediate, E experts, K experts per token, R = T·K rows (a token once per expert).
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from olmoe_ft.model.experts.activation import Activation, gated
from olmoe_ft.model.experts.matmul import WORTH_THREADS

FEW = 8  # rows of an expert with large matrices
SMALL = 12 * 10**6  # multiplications of all experts at all tokens, where matrices are small


class Share(NamedTuple):
    """The rows of one expert, from `start` to `end`."""

    expert: int
    start: int
    end: int


_generating = ContextVar("generating", default=False)


@contextmanager
def generating() -> Iterator[None]:
    """In the block few rows go this way. It is asked for, and not taken wherever no gradient is needed: sums have other
    last digits here, and what is compared with a training has to have the training's."""
    before = _generating.set(True)
    try:
        yield
    finally:
        _generating.reset(before)


def are_few(experts: Tensor, weight: Any) -> bool:
    """Whether text is generated and this is the faster way for experts (T, K) and the stack (E, 2I, H)."""
    if not (_generating.get() and isinstance(weight, Tensor)):  # a stack in 4 bits is none
        return False
    if weight.device.type != "cpu" or weight.dtype != torch.float32:
        return False
    if is_large(weight):
        return experts.numel() <= FEW * len(weight)
    return len(experts) * weight.numel() <= SMALL


def is_large(weight: Tensor) -> bool:
    return weight[0].numel() >= WORTH_THREADS


def few_rows(
    x: Tensor, experts: Tensor, weights: Tensor, gate_up: Tensor, down: Tensor, activation: Activation
) -> Tensor:
    """x (T, H), experts and weights (T, K), gate_up (E, 2I, H), down (E, H, I) -> (T, H)."""
    if len(x) == 1:
        return one_token(x, experts[0].tolist(), weights, gate_up, down, activation)
    if not is_large(gate_up):
        return all_experts(x, experts, weights, gate_up, down, activation)
    order, place, shares = by_expert(experts, len(gate_up))
    # one row more than R: the last expert's single row takes it along
    rows = x.index_select(0, F.pad(order // experts.shape[1], (0, 1)))  # (R + 1, H)
    projected = multiply(rows, gate_up, shares)  # (2I, R + 1)
    hidden = gated(activation, projected.t()).contiguous()  # (R + 1, I)
    outputs = multiply(hidden, down, shares).t().contiguous()  # (R + 1, H)
    return F.embedding_bag(place, outputs, mode="sum", per_sample_weights=weights)


def all_experts(
    x: Tensor, experts: Tensor, weights: Tensor, gate_up: Tensor, down: Tensor, activation: Activation
) -> Tensor:
    """Every expert at every token; of the outputs those that were chosen are summed."""
    projected = torch.bmm(x.expand(len(gate_up), -1, -1), gate_up.transpose(1, 2))  # (E, T, 2I)
    outputs = torch.bmm(gated(activation, projected), down.transpose(1, 2)).flatten(0, 1)  # (E·T, H)
    place = experts * len(x) + torch.arange(len(x)).unsqueeze(1)  # (T, K)
    return F.embedding_bag(place, outputs, mode="sum", per_sample_weights=weights)


def one_token(
    x: Tensor, experts: list[int], weights: Tensor, gate_up: Tensor, down: Tensor, activation: Activation
) -> Tensor:
    """x (1, H), weights (1, K) -> (1, H)."""
    times = large_times if is_large(gate_up) else torch.mv  # a small one is better off with one thread
    projected = torch.stack([times(gate_up[expert], x[0]) for expert in experts])  # (K, 2I)
    hidden = gated(activation, projected)  # (K, I)
    outputs = [times(down[expert], row) for expert, row in zip(experts, hidden.unbind(), strict=True)]
    return weights @ torch.stack(outputs)


def large_times(matrix: Tensor, row: Tensor) -> Tensor:
    """`matrix @ row`, with the row there twice. matrix (out, in), row (in,) -> (out,)."""
    return torch.mm(matrix, row.repeat(2, 1).t())[:, 0]


def by_expert(experts: Tensor, num_experts: int) -> tuple[Tensor, Tensor, list[Share]]:
    """Sort (token, expert) pairs by expert.

    Returns:
        the pair of each row (R,), the row of each pair (T, K), and the rows of the experts that have some.
    """
    flat = experts.flatten()
    order = flat.argsort()
    place = torch.empty_like(order)
    place[order] = torch.arange(len(order))
    shares, start = [], 0
    for expert, count in enumerate(flat.bincount(minlength=num_experts).tolist()):
        if count:
            shares.append(Share(expert, start, start + count))
            start += count
    return order, place.view_as(experts), shares


def multiply(rows: Tensor, weight: Tensor, shares: list[Share]) -> Tensor:
    """`weight[e] @ row` for each expert's rows. rows (R + 1, in), weight (E, out, in) -> (out, R + 1)."""
    product = rows.new_empty(weight.shape[1], len(rows))
    for expert, start, end in shares:
        if end - start > FEW:
            product[:, start:end] = (rows[start:end] @ weight[expert].t()).t()
        else:
            end = max(end, start + 2)  # what this is too much is written over by the next expert, or is the row more
            torch.mm(weight[expert], rows[start:end].t(), out=product[:, start:end])
    return product
