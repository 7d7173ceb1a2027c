"""Paired tests and Holm's correction, beside values worked out by hand or printed in tables."""

import math

import pytest

from olmoe_ft.report.comparison.significance import (
    FLIPS,
    MCNEMAR,
    SIGNS,
    STUDENT,
    holm,
    paired_difference,
    shown_p,
    student_p_value,
)


@pytest.mark.parametrize(
    ("t", "freedom", "p"),
    [(12.706, 1, 0.05), (4.303, 2, 0.05), (3.182, 3, 0.05), (2.571, 5, 0.05), (2.228, 10, 0.05), (3.169, 10, 0.01)],
)
def test_student_beside_the_printed_table(t, freedom, p):
    """Critical values of the t distribution, as every statistics book has them with three decimals."""
    assert student_p_value(t, freedom) == pytest.approx(p, rel=1e-3)
    assert student_p_value(-t, freedom) == student_p_value(t, freedom)


def test_student_in_closed_form_and_at_the_ends():
    """One degree is Cauchy: p = 1 - 2 atan(t) / pi. Two degrees: 1 - t / sqrt(2 + t^2). Many: the normal's erfc."""
    assert student_p_value(1.0, 1) == pytest.approx(0.5)
    assert student_p_value(1.0, 2) == pytest.approx(1 - 1 / math.sqrt(3))
    assert student_p_value(1.96, 20_000) == pytest.approx(math.erfc(1.96 / math.sqrt(2)), rel=1e-3)
    assert student_p_value(0.0, 7) == pytest.approx(1.0)
    assert 0.0 <= student_p_value(200.0, 9) < 1e-12


def test_right_and_wrong_is_mcnemar():
    """Four gained, none lost, of six: p = 2 / 2^4 = 0.125. Mean 4/6; variance 6/5 of (4/6) (2/6)."""
    found = paired_difference([0, 0, 0, 0, 1, 0], [1, 1, 1, 1, 1, 0])
    assert found is not None and found.method == MCNEMAR and found.questions == 6
    assert (found.changes.gained, found.changes.lost) == (4, 0)
    assert found.p == pytest.approx(0.125) and found.value == pytest.approx(4 / 6)
    assert found.stderr == pytest.approx(math.sqrt(6 / 5 * 4 / 6 * 2 / 6 / 6))


def test_other_metrics_are_a_paired_t_test():
    """Of 17 differences eight are -3, eight are 5, one is 1: mean 1, sum of squares around it 16 x 16, so that the
    standard deviation is 4 and t = sqrt(17) / 4 = 1.031 of 16 degrees. Tables have t = 1.071 at p = 0.30 and 0.865 at
    p = 0.40: between these, p = 0.318."""
    first = [10.0] * 17
    found = paired_difference(first, [7.0] * 8 + [15.0] * 8 + [11.0])
    assert found is not None and (found.method, found.changes) == (STUDENT, None)
    assert found.value == pytest.approx(1.0) and found.stderr == pytest.approx(4 / math.sqrt(17))
    assert found.p == pytest.approx(0.318, abs=5e-4)


def test_few_questions_are_an_exact_test():
    """Differences 1, -2, 4 have the sum 3. The eight ways to choose their signs have sums of 7, 5, 3 and 1, each two
    ways with either sign: six of eight are at least 3. Of 1, 2, 3 only all one way are 6: two of eight."""
    found = paired_difference([0.5, 10.0, 3.0], [1.5, 8.0, 7.0])
    assert found is not None and (found.method, found.p, found.value) == (FLIPS, 6 / 8, 1.0)
    assert found.stderr == pytest.approx(math.sqrt((0 + 9 + 9) / 2 / 3))
    assert paired_difference([0.5, 10.0, 3.0], [1.5, 12.0, 6.0]).p == 2 / 8
    assert paired_difference([0.1] * 6, [0.1 + number / 10 for number in range(1, 7)]).p == 2 / 2**6


@pytest.mark.parametrize("noise", [0.0, 1e-9])
def test_where_all_differ_by_the_same_there_is_no_t_test(noise):
    """It divides by the spread, which is rounding here. Two questions that both rose by 1 are like two tosses of a
    coin that come out alike: p = 0.5; twenty of twenty are 2 / 2^20."""
    two = paired_difference([6.0, 7.0], [7.0 + noise, 8.0])
    assert two is not None and (two.method, two.p) == (FLIPS, 0.5)
    twenty = paired_difference([float(at) for at in range(20)], [at + 1 + noise * (at % 3) for at in range(20)])
    assert twenty is not None and (twenty.method, twenty.p) == (SIGNS, 2 / 2**20)


@pytest.mark.parametrize("count", [4, 40])
def test_what_rounding_has_made_is_no_difference(count):
    """All a ten-millionth larger, as single precision rounds."""
    found = paired_difference([3.0] * count, [3.0000003] * count)
    assert found is not None and found.p == 1.0


def test_no_spread_and_too_few():
    assert paired_difference([0.5, 0.25], [0.5, 0.25]).p == 1.0
    assert paired_difference([0.5, 0.25], [1.0, 0.75]).p == 0.5
    assert paired_difference([1], [0]) is None and paired_difference([], []) is None
    assert paired_difference([0.5, math.nan], [0.5, 0.5]) is None


def test_holm_by_hand():
    """Of 0.01, 0.04, 0.03, 0.005: 4 x 0.005 = 0.02, 3 x 0.01 = 0.03, 2 x 0.03 = 0.06, and 0.04 is not less: 0.06."""
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.7]) == [1.0, 1.0] and holm([0.2]) == [0.2] and holm([]) == []


def test_shown():
    assert shown_p(0.031249) == "p = 0.031" and shown_p(0.00001) == "p < 0.0001" and shown_p(1.0) == "p = 1"
