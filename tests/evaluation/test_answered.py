"""Shares of marked completions, by hand, and what a summary's file says of them."""

from olmoe_ft.evaluation.answered import Answered, Mark

# three sums, of which two are right; one capital, wrong; three of four completions are in a style
MARKS = [
    ("sum", Mark(True, "bare")),
    ("capital", Mark(False, "polite")),
    ("sum", Mark(False, None)),
    ("sum", Mark(True, "bare")),
]


def test_shares_of_marks():
    score = Answered.of(MARKS, ["polite", "bare", "loud", "bare"])
    assert score.exact_match == 2 / 4 and score.count == 4
    assert list(score.skills.items()) == [("capital", 0.0), ("sum", 2 / 3)]
    assert list(score.styles.items()) == [("bare", 2 / 4), ("loud", 0.0), ("polite", 1 / 4)]


def test_a_score_is_written_and_read_back():
    score = Answered.of(MARKS, ["bare", "polite"])
    assert list(score.as_dict()) == ["exact_match", "styles", "skills", "count"]
    assert Answered.read(score.as_dict()) == score
    assert Answered.read(None) is None and Answered.read({"exact_match": 1.0}) is None
