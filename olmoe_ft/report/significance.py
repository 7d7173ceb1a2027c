"""Whether a difference between two models on the same questions may be chance."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from olmoe_ft.evaluation.paired import Changes

LEVEL = 0.05  # an adjusted p-value below it is called a difference
MCNEMAR, STUDENT = "McNemar's exact test", "paired t test"
METHODS = (
    f"Right and wrong answers: {MCNEMAR} of the questions whose verdict differs. Other metrics: {STUDENT} of the "
    "differences by question."
)


@dataclass(frozen=True)
class Difference:
    """The second model's mean minus the first's, over questions that both were asked."""

    value: float
    stderr: float
    """Of the mean of the differences by question, so it is smaller than that of two separate samples."""
    questions: int
    method: str
    p: float
    """Two-sided: how likely a difference at least as large is where both are equally good."""
    changes: Changes | None = None
    """Where the metric is right or wrong."""


def paired_difference(first: Sequence[float], second: Sequence[float]) -> Difference | None:
    """Compare a metric by question.

    Args:
        first, second: the values of both models, in the same order of questions.
    Returns:
        None of fewer than two questions, or where a value is not finite.
    """
    before, after = np.asarray(first, dtype=float), np.asarray(second, dtype=float)
    assert before.shape == after.shape
    by_question = after - before
    if len(by_question) < 2 or not np.isfinite(by_question).all():
        return None
    mean, stderr = float(by_question.mean()), float(by_question.std(ddof=1) / math.sqrt(len(by_question)))
    if np.isin([before, after], (0.0, 1.0)).all():
        changes = Changes(int((by_question > 0).sum()), int((by_question < 0).sum()))
        return Difference(mean, stderr, len(by_question), MCNEMAR, changes.p_value(), changes)
    p = _chance(mean, stderr, len(by_question) - 1)
    return Difference(mean, stderr, len(by_question), STUDENT, p)


def _chance(mean: float, stderr: float, freedom: int) -> float:
    if stderr == 0.0:
        return 0.0 if mean else 1.0
    return student_p_value(mean / stderr, freedom)


def student_p_value(t: float, freedom: int) -> float:
    """Two-sided, of Student's t distribution: a finite sum (Abramowitz and Stegun 1964, 26.7.3 and 26.7.4)."""
    angle = math.atan2(abs(t), math.sqrt(freedom))
    odd = freedom % 2
    term = total = math.cos(angle) if odd else 1.0
    for power in range(2 + odd, freedom - 1, 2):
        term *= (power - 1) / power * math.cos(angle) ** 2
        total += term
    within = math.sin(angle) * total
    if odd:
        within = 2 / math.pi * (angle + (within if freedom > 1 else 0.0))
    return max(0.0, 1 - within)


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjusted for how many are looked at (Holm 1979): at a level, the chance of one false difference or more among
    all of them stays below it."""
    order = sorted(range(len(p_values)), key=lambda place: p_values[place])
    adjusted, largest = [0.0] * len(p_values), 0.0
    for rank, place in enumerate(order):
        largest = max(largest, min(1.0, (len(order) - rank) * p_values[place]))
        adjusted[place] = largest
    return adjusted


def shown_p(p: float) -> str:
    """`p = 0.031`, or `p < 0.0001`."""
    return "p < 0.0001" if p < 0.0001 else f"p = {p:.2g}"
