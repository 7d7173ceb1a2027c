"""Paired tests and Holm's correction, beside values worked out by hand or printed in tables."""

import math

import pytest

from olmoe_ft.report.significance import MCNEMAR, STUDENT, holm, paired_difference, shown_p, student_p_value


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
    """Differences 1, 2, 3: mean 2, standard deviation 1, error 1/sqrt(3), t = 2 sqrt(3) = 3.4641 of two degrees:
    p = 1 - t / sqrt(2 + t^2) = 1 - sqrt(12 / 14)."""
    found = paired_difference([0.5, 10.0, 3.0], [1.5, 12.0, 6.0])
    assert found is not None and (found.method, found.changes) == (STUDENT, None)
    assert found.value == pytest.approx(2.0) and found.stderr == pytest.approx(1 / math.sqrt(3))
    assert found.p == pytest.approx(1 - math.sqrt(12 / 14))


def test_no_spread_and_too_few():
    assert paired_difference([0.5, 0.25], [0.5, 0.25]).p == 1.0
    assert paired_difference([0.5, 0.25], [1.0, 0.75]).p == 0.0
    assert paired_difference([1], [0]) is None and paired_difference([], []) is None
    assert paired_difference([0.5, math.nan], [0.5, 0.5]) is None


def test_holm_by_hand():
    """Of 0.01, 0.04, 0.03, 0.005: 4 x 0.005 = 0.02, 3 x 0.01 = 0.03, 2 x 0.03 = 0.06, and 0.04 is not less: 0.06."""
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.7]) == [1.0, 1.0] and holm([0.2]) == [0.2] and holm([]) == []


def test_shown():
    assert shown_p(0.031249) == "p = 0.031" and shown_p(0.00001) == "p < 0.0001" and shown_p(1.0) == "p = 1"
