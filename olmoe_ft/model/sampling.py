"""How the next token is drawn.

Shapes: R rows, V vocabulary.
"""

from dataclasses import dataclass
from random import Random

import torch
from torch import Tensor


@dataclass(frozen=True)
class Sampling:
    """A row's tokens are drawn instead of the likeliest one being taken."""

    temperature: float = 1.0
    """Above 0."""
    top_p: float = 1.0
    """Draw from the fewest tokens whose probabilities come to this much (Holtzman et al. 2020, section 3.1)."""
    seed: int = 0

    def __post_init__(self) -> None:
        assert self.temperature > 0 and 0 < self.top_p <= 1, self


class Sampler:
    """A row's settings, and its own random numbers: what other rows draw, and how many, changes nothing here."""

    def __init__(self, sampling: Sampling) -> None:
        self.sampling, self.random = sampling, Random(sampling.seed)


def next_tokens(logits: Tensor, samplers: list[Sampler | None]) -> Tensor:
    """logits (R, V), a sampler for each row or None for the likeliest token -> (R,)."""
    tokens = logits.argmax(dim=-1)
    if drawn := [row for row, sampler in enumerate(samplers) if sampler is not None]:
        settings = [(s.sampling.temperature, s.sampling.top_p, s.random.random()) for s in samplers if s is not None]
        rows = torch.tensor(drawn, device=logits.device)
        tokens[rows] = draw(logits[rows], *torch.tensor(settings, dtype=torch.float64, device=logits.device).T)
    return tokens


def draw(logits: Tensor, temperature: Tensor, top_p: Tensor, uniform: Tensor) -> Tensor:
    """One token of each row, by inversion: the first whose cumulative probability is above a uniform number.

    Args:
        logits: (R, V).
        temperature, top_p, uniform: (R,), in double precision; the last from 0 to below 1.
    Returns:
        (R,)
    """
    scaled = logits.double() / temperature.unsqueeze(1)
    probabilities, order = scaled.softmax(dim=-1).sort(dim=-1, descending=True, stable=True)
    up_to = probabilities.cumsum(dim=-1)  # (R, V)
    likelier = up_to - probabilities  # what the tokens before have together
    kept = probabilities.masked_fill_(likelier >= top_p.unsqueeze(1), 0).cumsum(dim=-1)
    place = (kept <= uniform.unsqueeze(1) * kept[:, -1:]).sum(dim=-1, keepdim=True)
    return order.gather(1, place).squeeze(1)
