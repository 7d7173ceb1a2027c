"""Length policies, token by token."""

import pytest

from olmoe_ft.constants import IGNORED
from olmoe_ft.data.length import Length
from olmoe_ft.data.rows import RowError
from olmoe_ft.data.tokens import Tokens, answer_tokens

BOS = 0
# a prompt of 5 tokens (BOS first) and an answer of 3
ROW = Tokens([0, 1, 2, 3, 4, 5, 6, 7], [IGNORED] * 5 + [5, 6, 7], 5)


def cut(**policy):
    found = Length(**policy).conversation(ROW, BOS)
    if isinstance(found, str):
        return found
    return found.input_ids, [label for label in found.labels if label != IGNORED], found.answer_start


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        # a row within max_length is never cut, whatever the rest says
        ({"max_length": None, "max_prompt_length": 1}, ([0, 1, 2, 3, 4, 5, 6, 7], [5, 6, 7], 5)),
        ({"max_length": 8, "max_prompt_length": 1, "long_prompts": "drop"}, ([0, 1, 2, 3, 4, 5, 6, 7], [5, 6, 7], 5)),
        # by default the first max_length tokens, as TRL's keep_start
        ({"max_length": 7}, ([0, 1, 2, 3, 4, 5, 6], [5, 6], 5)),
        ({"max_length": 5}, ([0, 1, 2, 3, 4], [], 5)),
        ({"max_length": 3}, ([0, 1, 2], [], 3)),
        # the prompt gives way first, to max_prompt_length, the BOS stays
        ({"max_length": 7, "max_prompt_length": 3}, ([0, 1, 2, 5, 6, 7], [5, 6, 7], 3)),
        ({"max_length": 7, "max_prompt_length": 3, "long_prompts": "keep_end"}, ([0, 3, 4, 5, 6, 7], [5, 6, 7], 3)),
        ({"max_length": 7, "max_prompt_length": 1, "long_prompts": "keep_end"}, ([0, 5, 6, 7], [5, 6, 7], 1)),
        (
            {"max_length": 7, "max_prompt_length": 3, "long_prompts": "drop"},
            "its prompt of 5 tokens is longer than 3 (data.long_prompts: drop)",
        ),
        # then the answer, to the room that is left
        ({"max_length": 7, "long_answers": "keep_end"}, ([0, 1, 2, 3, 4, 6, 7], [6, 7], 5)),
        (
            {"max_length": 7, "long_answers": "drop"},
            "its answer of 3 tokens is longer than the 2 left (data.long_answers: drop)",
        ),
        ({"max_length": 5, "max_prompt_length": 3, "long_prompts": "keep_end"}, ([0, 3, 4, 5, 6], [5, 6], 3)),
        # keep_end alone: the prompt gives way to the answer, down to its BOS, and then the answer
        ({"max_length": 7, "long_prompts": "keep_end"}, ([0, 2, 3, 4, 5, 6, 7], [5, 6, 7], 4)),
        ({"max_length": 5, "long_prompts": "keep_end"}, ([0, 4, 5, 6, 7], [5, 6, 7], 2)),
        ({"max_length": 3, "long_prompts": "keep_end"}, ([0, 5, 6], [5, 6], 1)),
        (
            {"max_length": 3, "long_prompts": "keep_end", "long_answers": "drop"},
            "its answer of 3 tokens is longer than the 2 left (data.long_answers: drop)",
        ),
        # a prompt within its own limit is not long
        ({"max_length": 7, "max_prompt_length": 5, "long_prompts": "drop"}, ([0, 1, 2, 3, 4, 5, 6], [5, 6], 5)),
    ],
)
def test_prompts_and_answers_are_cut_apart(policy, expected):
    assert cut(**policy) == expected


@pytest.mark.parametrize(
    "policy", [{}, {"long_prompts": "keep_end"}, {"long_answers": "drop"}, {"long_answers": "keep_end"}]
)
def test_what_stands_behind_the_last_learned_answer_goes_first(policy):
    """Four tokens behind the answer, which nothing learns from, make the row too long; without them it fits."""
    row = Tokens([*ROW.input_ids, 8, 8, 8, 8], [*ROW.labels, *[IGNORED] * 4], 5, 8)
    for room in (8, 11):
        cut = Length(room, **policy).conversation(row, BOS)
        assert (cut.input_ids, cut.labels) == (ROW.input_ids, ROW.labels)
    assert Length(12, **policy).conversation(row, BOS) is row


def test_what_is_left_of_a_cut_answer_is_not_learned():
    """BOS, an earlier answer of tokens 1 to 4, a question 5, the last answer 6 7; four of them fit beside BOS.

    The prompt keeps BOS and 4 5: the end of the earlier answer without its beginning, which answers nothing.
    """
    row = Tokens([0, 1, 2, 3, 4, 5, 6, 7], [IGNORED, 1, 2, 3, 4, IGNORED, 6, 7], 6, 8)
    cut = Length(5, long_prompts="keep_end").conversation(row, BOS)
    assert (cut.input_ids, cut.labels) == ([0, 4, 5, 6, 7], [IGNORED, IGNORED, IGNORED, 6, 7])


def test_keep_end_leaves_what_begins_the_answers_turn():
    """Of 320 tokens a sixteenth's share, at most 16, stays of the prompt, however long the answer is."""
    row = Tokens([0] * 100 + [1] * 400, [IGNORED] * 100 + [1] * 400, 100, 500)
    cut = Length(320, long_prompts="keep_end").conversation(row, BOS)
    assert (cut.answer_start, len(cut.input_ids)) == (16, 320)


def test_without_a_bos_the_end_is_the_end():
    row = Tokens([9, 1, 2, 3], [IGNORED] * 3 + [3], 3)
    found = Length(3, 2, "keep_end").conversation(row, BOS)
    assert found.input_ids == [1, 2, 3]


def test_both_answers_of_a_pair_see_the_same_prompt():
    """Prompt 4, answers 2 and 4: the longer side, 8, decides that the prompt is cut for both."""
    prompt, chosen, rejected = [0, 1, 2, 3], [4, 5], [6, 7, 8, 9]
    assert Length(8).answered(prompt, [chosen, rejected], BOS) == [prompt, chosen, rejected]
    assert Length(7, 2, "keep_end").answered(prompt, [chosen, rejected], BOS) == [[0, 3], chosen, rejected]
    assert Length(7, None, "keep_end").answered(prompt, [chosen, rejected], BOS) == [[0, 2, 3], chosen, rejected]
    assert Length(5, 2).answered(prompt, [chosen, rejected], BOS) == [[0, 1], chosen, [6, 7, 8]]
    assert Length(5, 2, long_answers="drop").answered(prompt, [chosen, rejected], BOS) == (
        "its answer of 4 tokens is longer than the 3 left (data.long_answers: drop)"
    )
    assert Length(3).answered(prompt, [chosen, rejected], BOS) == [[0, 1, 2], [], []]


def test_a_pair_has_one_prompt_and_its_last_answers_alone():
    """What a template writes behind the last answer (token 9) is no part of it."""
    chosen = Tokens([0, 1, 2, 4, 9], [IGNORED] * 3 + [4, IGNORED], 3, 4)
    rejected = Tokens([0, 1, 2, 5, 6], [IGNORED] * 3 + [5, 6], 3, 5)
    assert answer_tokens(chosen, rejected) == ([0, 1, 2], [4], [5, 6])
    other = Tokens([0, 1, 3, 5, 6], [IGNORED] * 3 + [5, 6], 3, 5)
    assert isinstance(answer_tokens(chosen, other), RowError)


def test_the_first_token_of_a_row_is_predicted_by_none():
    assert Tokens([5, 6], [5, 6], 0).supervised == 1
