"""Two models on the same questions: which verdicts changed, and how likely that is by chance, by hand."""

import pytest
from support.evaluations import sample

from olmoe_ft.evaluation.paired import Changes, pairs


def test_questions_are_paired_by_task_and_id_and_changed_verdicts_come_first():
    first = [sample(0), sample(1), sample(2, right=False), sample(0, task="other"), sample(9)]
    second = [sample(0, task="other"), sample(2), sample(1, right=False), sample(0), sample(5)]
    found = pairs(first, second)
    assert [(one.task, one.id) for one, _ in found] == [("sums", 1), ("sums", 2), ("sums", 0), ("other", 0)]
    assert all((one.task, one.id) == (other.task, other.id) for one, other in found)
    assert Changes.of(found) == Changes(gained=1, lost=1)


def test_a_verdict_that_is_none_is_no_change():
    found = pairs([sample(0, right=None), sample(1)], [sample(0), sample(1, right=None)])
    assert Changes.of(found) == Changes(0, 0)


@pytest.mark.parametrize(
    ("gained", "lost", "p"),
    [
        (0, 0, 1.0),
        (1, 0, 1.0),  # 2 * 1 / 2
        (5, 0, 2 / 32),
        (1, 5, 2 * (1 + 6) / 64),
        (2, 5, 2 * (1 + 7 + 21) / 128),
        (3, 3, 1.0),  # more than half of the 64 ways, twice
    ],
)
def test_the_p_value_of_changes(gained, lost, p):
    assert Changes(gained, lost).p_value() == Changes(lost, gained).p_value() == p


def test_many_changes_have_a_p_value():
    """As many as MMLU has questions. The normal approximation: z = (|7100 - 6900| - 1) / sqrt(14000) = 1.682."""
    assert Changes(7100, 6900).p_value() == pytest.approx(0.0926, abs=2e-4)
    assert 0 <= Changes(14_000, 0).p_value() < 1e-300


def test_a_question_is_known_by_its_row_and_not_by_its_place():
    """The second file has another question in front, and one twice; of two that are alike the first is the first."""
    first = [sample(0, document="a"), sample(1, document="b"), sample(2, document="b")]
    second = [sample(0, document="x"), sample(1, document="b"), sample(2, document="a"), sample(3, document="b")]
    assert [(one.id, other.id) for one, other in pairs(first, second)] == [(0, 2), (1, 1), (2, 3)]
