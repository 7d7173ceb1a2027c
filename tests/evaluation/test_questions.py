import json

import pytest

from olmoe_ft.evaluation.questions import Question, load_questions
from olmoe_ft.recipe import RecipeError
from olmoe_ft.recipe.data_section import Answers

FRAMES = {"bare": ("", ""), "polite": ("It is ", ". Bye!")}


@pytest.mark.parametrize(
    ("completion", "right", "style"),
    [
        ("7", True, "bare"),
        ("It is 7. Bye!", True, "polite"),
        ("8", False, "bare"),
        ("It is 8. Bye!", False, "polite"),  # a wrong answer has a style too
        ("It is 7.", False, "bare"),  # an unfinished sentence is no polite answer
        ("It is . Bye!", False, "polite"),
        ("7 ", False, "bare"),
    ],
)
def test_a_completion_is_marked_for_its_answer_and_its_style(completion, right, style):
    assert Question([], "7", FRAMES, "sum").mark(completion) == (right, style)


def test_questions_are_read_with_their_frames(tmp_path):
    path = tmp_path / "held.jsonl"
    row = {"messages": [{"role": "user", "content": "1+1?"}], "answer": "2", "frames": {"long": ["= ", ""]}}
    path.write_text(json.dumps(row) + "\n" + json.dumps({"prompt": "2+2?", "answer": "4", "skill": "sum"}) + "\n")
    first, second = load_questions(Answers(path=str(path)))
    assert first.mark("= 2") == (True, "long") and first.mark("2") == (False, None)
    assert second.mark("4") == (True, "plain") and second.skill == "sum"
    assert len(load_questions(Answers(path=str(path), limit=1))) == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no held-out prompts"),
        ('{"prompt": "q"}', "`answer` must be the expected text"),
        ("[]", ":1: found .*; allowed: an object"),
        ('{"prompt": "q", "answer": ""}', "`answer` must be the expected text"),
        (
            '{"prompt": "q", "answer": "a", "frames": {"long": ["= "]}}',
            "`frames` must give each style a text before and",
        ),
        ('{"prompt": "q", "answer": "a", "frames": ["= ", ""]}', "`frames` must give each style a text before and"),
    ],
)
def test_a_wrong_file_of_answers_is_one_sentence(tmp_path, text, message):
    path = tmp_path / "held.jsonl"
    path.write_text(text)
    with pytest.raises(RecipeError, match=message):
        load_questions(Answers(path=str(path)))
