"""Is attention within packed documents right, and where two answers share a prompt? Output and gradients beside fp64.

Shapes: T tokens, N heads, D head size.
"""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from gpu.exact import after_many, compare, drawn, poison, shapes
from gpu.part import Part
from olmoe_ft.model.attention_backends import segment_attention, segments_of, varlen_attention

DOCUMENTS = 5, 130, 1, 257, 64
PROMPT, FIRST, SECOND = 70, 33, 90


def run(part: Part) -> None:
    sizes = [size // (4 if part.dry else 1) + 1 for size in DOCUMENTS]
    starts = torch.tensor(sizes).cumsum(0) - torch.tensor(sizes)
    alone = [torch.arange(start, start + size) for start, size in zip(starts.tolist(), sizes, strict=True)]
    part.attempt("attention: documents", partial(check, part, "attention: documents", alone, alone))
    prompt, both = torch.arange(PROMPT), torch.arange(PROMPT + FIRST)
    second = torch.arange(PROMPT + FIRST, PROMPT + FIRST + SECOND)
    queries, keys = [both, second], [both, torch.cat([prompt, second])]
    part.attempt("attention: a shared prompt", partial(check, part, "attention: a shared prompt", queries, keys))


def check(part: Part, what: str, queries: list[Tensor], keys: list[Tensor]) -> None:
    """queries, keys: of each segment, the tokens."""
    s = shapes(part)
    tokens, size = sum(map(len, queries)), s.hidden // s.heads
    q, k, v = (drawn(part, 1, s.heads, tokens, size) for _ in range(3))
    gradient = drawn(part, 1, tokens, s.heads, size)
    given = [x.clone().requires_grad_() for x in (q, k, v)]
    poison(part)
    y = attend(part, queries, keys)(*given)
    found = torch.autograd.grad(y, given, gradient)
    given = [x.double().requires_grad_() for x in (q, k, v)]
    exact = exactly(*given, queries, keys)
    expected = torch.autograd.grad(exact, given, gradient.double())
    compare(part, f"{what}: output", y.detach(), exact.detach(), after_many(exact.detach()))
    for name, one, other in zip(("queries", "keys", "values"), found, expected, strict=True):
        compare(part, f"{what}: gradient of {name}", one, other, after_many(other))


def attend(part: Part, queries: list[Tensor], keys: list[Tensor]) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    """Attention of q, k and v (1, N, T, D) as the network has it: by torch's variable-length kernel on a GPU, by
    segment on a CPU."""
    starts = [
        torch.tensor([0, *map(len, each)], device=part.device).cumsum(0).to(torch.int32) for each in (queries, keys)
    ]
    bounds = {"cu_seq_lens_q": starts[0], "cu_seq_lens_k": starts[1], "key_places": torch.cat(keys).to(part.device)}
    longest = {"max_length_q": max(map(len, queries)), "max_length_k": max(map(len, keys))}
    tokens, module = sum(map(len, queries)), nn.Module()
    if part.dry:
        segments = segments_of(tokens, starts[0], starts[1], longest["max_length_k"], bounds["key_places"])
        return lambda q, k, v: segment_attention(module, q, k, v, None, q.shape[-1] ** -0.5, segments=segments)[0]
    return lambda q, k, v: varlen_attention(module, q, k, v, None, q.shape[-1] ** -0.5, **bounds, **longest)[0]


def exactly(q: Tensor, k: Tensor, v: Tensor, queries: list[Tensor], keys: list[Tensor]) -> Tensor:
    """Softmax attention of each segment; a query sees the keys up to its own, which are the last ones."""
    results = []
    for own, seen in zip(queries, keys, strict=True):
        scores = q[0, :, own] @ k[0, :, seen].transpose(-2, -1) * q.shape[-1] ** -0.5  # (N, queries, keys)
        later = torch.ones_like(scores[0], dtype=torch.bool).triu(len(seen) - len(own) + 1)
        results.append(scores.masked_fill(later, -torch.inf).softmax(dim=-1) @ v[0, :, seen])
    return torch.cat(results, dim=1).transpose(0, 1)[None]  # (1, T, N, D)
