"""Thinned series keep every peak, the ends and the gaps."""

import math
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from olmoe_ft.report.metrics import Values
from olmoe_ft.report.thin import POINTS, kept, thinned

NUMBERS = st.floats(-1e6, 1e6) | st.sampled_from([math.nan, math.inf, -math.inf])
SERIES = st.integers(1, 400).flatmap(lambda count: arrays(np.float64, count, elements=NUMBERS))


@given(values=SERIES, most=st.integers(5, 60))
def test_a_thinned_series_has_the_extremes_and_the_ends_of_the_whole(values, most):
    places = kept(values, most)
    assert len(places) <= most or len(values) <= most
    assert (np.diff(places) > 0).all()
    assert (places[0], places[-1]) == (0, len(values) - 1)
    finite, left = values[np.isfinite(values)], values[places][np.isfinite(values[places])]
    assert len(finite) == 0 or (finite.min(), finite.max()) == (left.min(), left.max())
    assert len(finite) == len(values) or not np.isfinite(values[places]).all()


@given(values=SERIES, most=st.integers(5, 60), window=st.integers(1, 400))
def test_a_gap_is_near_every_number_that_is_not_finite(values, most, window):
    """Nearer than a bucket is wide: there are (most - 2) // 3 of them where there are gaps."""
    places = kept(values, most)
    gaps = places[~np.isfinite(values[places])]
    width = -(-len(values) // ((most - 2) // 3))
    for place in np.flatnonzero(~np.isfinite(values)):
        assert np.abs(gaps - place).min() < width


def test_the_extremes_of_each_bucket_are_kept_by_hand():
    """12 places, at most 8 points: 3 buckets of 4. 0-3: low at 2, high at 1; 4-7: 4 and 5; 8-11: 8 and 11."""
    values = np.array([5, 9, 1, 5, 2, 8, 3, 3, 0, 4, 4, 7.0])
    assert kept(values, 8).tolist() == [0, 1, 2, 4, 5, 8, 11]


def test_a_gap_is_none_and_numbers_have_six_digits():
    """33237.0 is written 33237; 1/3 with six digits; JSON has no NaN."""
    values = np.array([33237.0, 1 / 3, math.nan, math.inf, -2.0, 123456789.0])
    assert thinned("loss", Values(np.arange(6), values)).y == [33237, 0.333333, None, None, -2, 123457000]


def test_steps_and_errors_stay_with_their_values():
    values = Values(np.array([10, 20, 40]), np.array([0.5, 0.25, 1.0]))
    errors = Values(np.array([20, 40]), np.array([0.125, 0.0625]))
    found = thinned("eval/a/acc", values, points=True, errors=errors)
    assert (found.x, found.y, found.errors) == ([10, 20, 40], [0.5, 0.25, 1], [0.0, 0.125, 0.0625])


@pytest.mark.parametrize("bad", [0, 3])
def test_a_hundred_thousand_values_take_milliseconds(bad):
    values = np.random.default_rng(0).normal(size=100_000)
    values[::1000][:bad] = np.nan
    times = []
    for _ in range(5):
        start = time.perf_counter()
        found = thinned("loss", Values(np.arange(100_000), values))
        times.append(time.perf_counter() - start)
    assert min(times) < 0.1
    assert 1_000 < len(found.x) <= POINTS
    assert found.y.count(None) == bad
