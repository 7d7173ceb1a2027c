"""Each scorer, with the values that a person gives."""

import time

import pytest

from olmoe_ft.evaluation.questions import Question
from olmoe_ft.evaluation.scorers import frames, json_text, number, regular_expression
from olmoe_ft.recipe import UserError

FRAMES = {"bare": ["", ""], "polite": ["It is ", ". Bye!"]}


@pytest.mark.parametrize("output", ["7", "It is 7. Bye!", "8", "It is 8. Bye!", "It is 7.", "It is . Bye!", "7 ", ""])
def test_frames_are_marked_as_questions_are(output):
    """The scorer says what `Question.mark` says, which test_questions.py has by hand."""
    mark = Question([], "7", {name: (before, after) for name, (before, after) in FRAMES.items()}, "sum").mark(output)
    scores = frames.process_results({"answer": "7", "frames": FRAMES}, [output])
    assert scores == {
        "exact_match": float(mark.right),
        "style_bare": float(mark.style == "bare"),
        "style_polite": float(mark.style == "polite"),
    }


def test_a_row_without_frames_has_one_style_and_null_frames_are_of_other_rows():
    assert frames.process_results({"answer": "7"}, ["7"]) == {"exact_match": 1, "style_plain": 1}
    row = {"answer": "7", "frames": {"bare": ["", ""], "polite": None}}
    assert frames.process_results(row, ["It is 7. Bye!"]) == {"exact_match": 0, "style_bare": 1}


@pytest.mark.parametrize(
    ("output", "found"),
    [
        ("18", "18"),
        ("She makes 9 * 2 = $18 every day.", "18"),
        ("It costs $1,234.50.", "1234.50"),
        ("1,000,000", "1000000"),
        ("so 50%", "50"),
        ("it is -5", "-5"),
        ("it is \u22125", "-5"),  # the sign for minus
        ("a loss of -$20", "-20"),
        ("a loss of $-20", "-20"),
        ("16-3", "3"),  # a difference
        ("(16)-3", "3"),
        ("x=-3", "-3"),
        ("about .5 litres", "0.5"),
        ("1, 2, 3", "3"),
        ("1,2", "2"),
        ("room 12,3456", "3456"),  # no group of three
        ("The answer is 18. She sells 3 a day.", "18"),
        ("the answer is: $18 for 4", "18"),
        ("The answer is **18**, of 20", "18"),
        ("The answer is 17. No, the answer is 18.", "18"),
        ("9 * 2\n#### 18\nThat took 3 steps", "18"),
        ("The answer is unclear, maybe 18", "18"),
        ("18.0", "18"),
        ("no number", None),
        ("", None),
    ],
)
def test_the_number_of_an_output(output, found):
    value = number.number_in(output)
    assert value is None if found is None else value == number.Decimal(found)


@pytest.mark.parametrize(
    ("answer", "value"),
    [("9 + 9 = 18\n#### 18", "18"), ("#### 1,000", "1000"), ("-5", "-5"), ("$3.50.", "3.5"), ("20%", "20"), (18, "18")],
)
def test_the_number_that_a_row_expects(answer, value):
    assert number.expected_number({"answer": answer}) == number.Decimal(value)
    assert number.process_results({"answer": answer}, [f"It is {value}"]) == {"exact_match": 1}
    assert number.process_results({"answer": answer}, [f"It is 1{value}"]) == {"exact_match": 0}
    assert number.process_results({"answer": answer}, ["no idea"]) == {"exact_match": 0}


@pytest.mark.parametrize(
    ("pattern", "output", "matches"),
    [
        (r"\d+", "42", True),
        (r"\d+", " 42\n", True),  # white space around the output does not count
        (r"\d+", "42 apples", False),  # the whole output
        (r"yes|no", "no", True),
        (r"yes|no", "nope", False),
        (r"(?i)paris", "PARIS", True),
        (r"a.b", "a\nb", False),
        (r"(?s)a.b", "a\nb", True),
        (r"\d+", "", False),
    ],
)
def test_a_pattern_matches_the_whole_output(pattern, output, matches):
    expected = {"regex_match": float(matches), "timed_out": 0.0}
    assert regular_expression.process_results({"answer": pattern}, [output]) == expected


def test_a_catastrophic_pattern_does_not_hang():
    """Sixty letters are cut into ones and twos in 2.5e12 ways (the 61st Fibonacci number); the limit is one second."""
    begun = time.monotonic()
    scores = regular_expression.process_results({"answer": "(a|aa)+b"}, ["a" * 60])
    assert scores == {"regex_match": 0, "timed_out": 1}
    assert time.monotonic() - begun < 20


@pytest.mark.parametrize(
    ("output", "valid", "equal"),
    [
        ('{"a": 1, "b": [true, null]}', True, True),
        ('\n{"b": [true, null], "a": 1.0}\n', True, True),  # order, white space and 1.0 for 1 make no difference
        ('{"a": true, "b": [true, null]}', True, False),  # to Python true is 1
        ('{"a": 1, "b": [null, true]}', True, False),
        ('{"a": "1", "b": [true, null]}', True, False),
        ("[]", True, False),
        ('```json\n{"a": 1, "b": [true, null]}\n```', False, False),
        ('{"a": 1, "b": [true, null]} Done.', False, False),
        ('{"a": NaN}', False, False),
        ('{"a": 2, "a": 1, "b": [true, null]}', False, False),
        ("[" * 100_000, False, False),
        ('{"a": 1e99999999999999999999}', True, False),  # too large for any number type, but JSON
        ("", False, False),
    ],
)
def test_json_is_valid_and_equal(output, valid, equal):
    row = {"answer": '{"a": 1, "b": [true, null]}'}
    assert json_text.process_results(row, [output]) == {"valid_json": float(valid), "exact_match": float(equal)}
    assert json_text.process_results({"answer": None}, [output]) == {"valid_json": float(valid)}


@pytest.mark.parametrize(
    ("scorer", "row", "message"),
    [
        (frames, {}, "`answer` must be the expected text, found nothing"),
        (frames, {"answer": "a", "frames": {"long": ["= "]}}, "`frames` must give each style"),
        (frames, {"answer": "a", "frames": ["= ", ""]}, "`frames` must give each style"),
        (number, {"answer": "eighteen"}, "`answer` must be a number, or a text that ends with `#### 18`"),
        (number, {"answer": "18 and 19"}, "`answer` must be a number"),
        (number, {"answer": True}, "`answer` must be a number"),
        (number, {}, "`answer` must be a number"),
        (regular_expression, {"answer": "(a"}, "`answer` must be a regular expression, found '\\(a': missing"),
        (regular_expression, {"answer": 3}, "`answer` must be a regular expression, found 3"),
        (json_text, {"answer": "{a: 1}"}, "`answer` must be a text of JSON"),
        (json_text, {"answer": {"a": 1}}, "`answer` must be a text of JSON"),
    ],
)
def test_a_row_that_cannot_be_marked_is_one_sentence(scorer, row, message):
    with pytest.raises(UserError, match=message):
        scorer.process_results(row, ["an output"])
