"""Whether two shares of right answers to different questions differ by more than chance."""

import math

import numpy as np

FISHER = "Fisher's exact test"
TIES = 1 + 1e-7  # outcomes that are as likely as the one that was found, but for rounding


def fisher_p_value(first: tuple[int, int], second: tuple[int, int]) -> float:
    """Two-sided (Fisher 1935): how likely a split of the right answers is that is at most as likely as this one, where
    both models are equally good.

    Args:
        first, second: right answers, and all answers.
    """
    (right, n), (others, m) = first, second
    total = right + others
    splits = np.arange(max(0, total - m), min(n, total) + 1)
    logs = np.array([_ways(n, int(one)) + _ways(m, total - int(one)) for one in splits]) - _ways(n + m, total)
    chances = np.exp(logs)
    found = chances[right - splits[0]]
    return min(1.0, float(chances[chances <= TIES * found].sum()))


def _ways(n: int, chosen: int) -> float:
    """The logarithm of the number of ways to choose."""
    return math.lgamma(n + 1) - math.lgamma(chosen + 1) - math.lgamma(n - chosen + 1)
