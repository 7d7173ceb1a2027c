import pytest

from olmoe_ft.data.formats import RowError, conversation, conversation_prompt, preference_pair


def user(text):
    return {"role": "user", "content": text}


def assistant(text):
    return {"role": "assistant", "content": text}


def system(text):
    return {"role": "system", "content": text}


PAIR = {"prompt": [user("q")], "chosen": [assistant("good")], "rejected": [assistant("bad")]}


@pytest.mark.parametrize(
    ("row", "messages"),
    [
        ({"messages": [user("q"), assistant("a")], "id": 3}, [user("q"), assistant("a")]),
        (
            {"messages": [system("s"), user("q"), assistant("a"), user("q2"), assistant("a2")]},
            [system("s"), user("q"), assistant("a"), user("q2"), assistant("a2")],
        ),
        ({"prompt": "q", "completion": "a"}, [user("q"), assistant("a")]),
        ({"prompt": [user("q")], "completion": [assistant("a")]}, [user("q"), assistant("a")]),
        ({"instruction": "do", "input": "", "output": "done"}, [user("do"), assistant("done")]),
        ({"instruction": "do", "input": "this", "output": "done"}, [user("do\n\nthis"), assistant("done")]),
        (
            {"conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}], "system": "s"},
            [system("s"), user("q"), assistant("a")],
        ),
    ],
)
def test_conversations(row, messages):
    assert conversation(row) == messages


@pytest.mark.parametrize(
    "row",
    [
        PAIR,
        {"prompt": "q", "chosen": "good", "rejected": "bad"},
        {"question": "q", "chosen": "good", "rejected": "bad"},
        {"prompt": "q", "chosen": assistant("good"), "rejected": assistant("bad")},
        {  # ShareGPT
            "conversations": [{"from": "human", "value": "q"}],
            "chosen": {"from": "gpt", "value": "good"},
            "rejected": {"from": "gpt", "value": "bad"},
        },
        {  # whole transcripts; UltraFeedback binarized repeats the chosen one in `messages`
            "prompt": "q",
            "chosen": [user("q"), assistant("good")],
            "rejected": [user("q"), assistant("bad")],
            "messages": [user("q"), assistant("good")],
        },
        {"chosen": [user("q"), assistant("good")], "rejected": [user("q"), assistant("bad")]},
    ],
)
def test_preference_pairs(row):
    assert preference_pair(row) == PAIR


def test_a_multi_turn_prompt_is_the_shared_start():
    shared = [system("s"), user("1"), assistant("2"), user("3")]
    row = {"chosen": [*shared, assistant("good")], "rejected": [*shared, assistant("bad")]}
    assert preference_pair(row) == {"prompt": shared, "chosen": [assistant("good")], "rejected": [assistant("bad")]}


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"text": "plain"}, "none of the known formats"),
        ({"messages": []}, "`messages` must be a list of turns"),
        ({"messages": "hello"}, "`messages` must be a list of turns, found 'hello'"),
        ({"messages": ["hello"]}, r"`messages\[0\]` must be a turn"),
        ({"messages": [user("q")]}, "no assistant turn"),
        ({"messages": [user("q"), {"role": "narrator", "content": "a"}]}, r"`messages\[1\]` has the role 'narrator'"),
        ({"messages": [user("q"), {"role": "assistant"}]}, r"`messages\[1\]` must be a text that is not empty"),
        ({"messages": [user("q"), assistant("  ")]}, "must be a text that is not empty, found '  '"),
        ({"messages": [user("q"), {**assistant("a"), "tool_calls": [1]}]}, "calls tools"),
        ({"instruction": 3, "output": "x"}, "`instruction` must be a text"),
        ({"prompt": "q", "completion": None}, "`completion` must be a text that is not empty, found nothing"),
    ],
)
def test_a_malformed_conversation_says_what_is_wrong(row, reason):
    with pytest.raises(RowError, match=reason):
        conversation(row)


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"prompt": "q", "chosen": "a"}, "`rejected` must be a text that is not empty, found nothing"),
        ({"chosen": "a", "rejected": "b"}, "has no prompt"),
        ({"chosen": [user("x"), assistant("a")], "rejected": [user("y"), assistant("b")]}, "has no prompt"),
        ({"prompt": "q", "chosen": [user("a")], "rejected": "b"}, "`chosen` must add one assistant turn"),
    ],
)
def test_a_malformed_pair_says_what_is_wrong(row, reason):
    with pytest.raises(RowError, match=reason):
        preference_pair(row)


def test_a_named_format_is_not_guessed():
    row = {"messages": [user("q"), assistant("a")], "instruction": "do", "output": "done"}
    assert conversation(row, "alpaca") == [user("do"), assistant("done")]
    with pytest.raises(RowError, match="gives no conversations"):
        conversation(row, "preference")
    with pytest.raises(RowError, match="gives no preference pairs"):
        preference_pair(PAIR, "alpaca")


def test_a_prompt_to_answer_ends_with_a_user_turn():
    assert conversation_prompt({"messages": [user("q")], "answer": "a"}) == [user("q")]
    for row in ({"messages": [user("q"), assistant("a")]}, {"answer": "a"}, "text"):
        with pytest.raises(RowError):
            conversation_prompt(row)
