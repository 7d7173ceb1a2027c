"""Whether a difference between two models on the same questions may be chance."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from olmoe_ft.evaluation.paired import Changes

LEVEL = 0.05  # an adjusted p-value below it is called a difference
FEWEST = 6  # questions: of fewer no exact test can say it, as all that go one way are p = 2 / 2^5 = 0.06
MOST_FLIPS = 16  # questions: 65,536 ways to choose the signs of their differences
ROUNDING = 1e-6  # of a value, to which single precision is exact
MCNEMAR, FLIPS, SIGNS, STUDENT = "McNemar's exact test", "exact sign-flip test", "exact sign test", "paired t test"
METHODS = (
    f"Right and wrong answers: {MCNEMAR} of the questions whose verdict differs. Other metrics: the {FLIPS} of the "
    f"differences by question where there are {MOST_FLIPS} questions or fewer; else a {STUDENT}, or an {SIGNS} where "
    f"all questions differ by the same. Of fewer than {FEWEST} questions no difference is beyond chance."
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
    size = np.maximum(np.abs(before), np.abs(after))
    return Difference(mean, stderr, len(by_question), *_chance(by_question, size))


def _chance(by_question: np.ndarray, size: np.ndarray) -> tuple[str, float]:
    """The test of differences, and its p-value. What rounding may have made is no difference and no spread, since a t
    test divides by the spread.

    Args:
        size: of the values that the differences are of.
    """
    differences = np.where(np.abs(by_question) <= ROUNDING * size, 0.0, by_question)
    if len(differences) <= MOST_FLIPS:
        return FLIPS, sign_flip_p_value(differences)
    spread = float(differences.std(ddof=1))
    if spread <= ROUNDING * float(size.max()):
        return SIGNS, Changes(int((differences > 0).sum()), int((differences < 0).sum())).p_value()
    return STUDENT, student_p_value(
        float(differences.mean()) / spread * math.sqrt(len(differences)), len(differences) - 1
    )


def sign_flip_p_value(differences: np.ndarray) -> float:
    """Two-sided (Fisher 1935): the share of all ways to choose the signs of the differences whose sum is at least as
    far from 0. Where both models are equally good, each difference could as well be the other way round.
    """
    sums = np.zeros(1)
    for one in differences:
        sums = np.concatenate([sums + one, sums - one])
    least = abs(float(differences.sum())) - ROUNDING * float(np.abs(differences).sum())
    return float((np.abs(sums) >= least).mean())


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
