"""Long series as few points, with every peak: 100,000 records are drawn as all of them would be."""

from collections.abc import Sequence

import numpy as np

from olmoe_ft.report.files.metrics import Values
from olmoe_ft.report.page.blocks import Series
from olmoe_ft.report.page.numbers import rounded

POINTS = 2_000  # of one series: two for each pixel of a wide chart
DIGITS = 6  # significant, of a value


def kept(values: np.ndarray, points: int = POINTS) -> np.ndarray:
    """The places of a series that are kept: the first, the last, and of each bucket the lowest and the highest.

    Of the numbers in a bucket that are not finite one is kept, so that the line has a gap there.

    Args:
        values: (N,), in the order in which they are drawn.
        points: how many are kept at most, at least 5.
    Returns:
        (M,) rising indices, M <= `points`; all N of a short series.
    """
    assert points >= 5
    count, finite = len(values), np.isfinite(values)
    if count <= points:
        return np.arange(count)
    of_a_bucket = 2 if finite.all() else 3
    width = -(-count // ((points - 2) // of_a_bucket))  # places in a bucket
    rows = -(-count // width)
    places = np.minimum(np.arange(rows * width), count - 1).reshape(rows, width)  # the last bucket repeats its last
    known = finite[places]
    low = np.where(known, values[places], np.inf).argmin(axis=1)
    high = np.where(known, values[places], -np.inf).argmax(axis=1)
    every, gaps = np.arange(rows), (~known).any(axis=1)
    gap = places[every[gaps], (~known).argmax(axis=1)[gaps]]
    return np.unique(np.concatenate([[0, count - 1], places[every, low], places[every, high], gap]))


def thinned(
    name: str, found: Values, *, points: bool = False, errors: Values | None = None, most: int = POINTS
) -> Series:
    """A metric as a series of at most so many points.

    Args:
        name: of the series.
        points: whether they are points with nothing between them.
        errors: their standard errors; 0 where a step has none.
        most: how many points are kept at most.
    """
    places = kept(found.values, most)
    steps = found.steps[places]
    return Series(
        name,
        x=steps.tolist(),
        y=rounded(found.values[places], DIGITS),
        points=points,
        errors=None if errors is None else _errors(steps, errors),
    )


def _errors(steps: np.ndarray, errors: Values) -> Sequence[float]:
    at = dict(zip(errors.steps.tolist(), rounded(errors.values, DIGITS), strict=True))
    return [at.get(step) or 0.0 for step in steps.tolist()]
