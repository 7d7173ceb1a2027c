import json

import pytest

from olmoe_ft.data.formats import conversation_prompt, training_example
from olmoe_ft.data.pairs import preference_pair
from olmoe_ft.data.rows import RowError


def user(text):
    return {"role": "user", "content": text}


def assistant(text):
    return {"role": "assistant", "content": text}


def system(text):
    return {"role": "system", "content": text}


def parts(pair):
    return {name: pair[name] for name in ("prompt", "chosen", "rejected")}


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
        (  # a table gives every row all keys
            {"messages": None, "prompt": "q", "completion": "a", "text": None},
            [user("q"), assistant("a")],
        ),
        ({"messages": json.dumps([user("q"), assistant("a")])}, [user("q"), assistant("a")]),  # as a CSV holds it
        ({"messages": [user([{"type": "text", "text": "q"}]), assistant("a")]}, [user("q"), assistant("a")]),
        (
            {"instruction": "q2", "input": "", "output": "a2", "system": "s", "history": [["q", "a"]]},
            [system("s"), user("q"), assistant("a"), user("q2"), assistant("a2")],
        ),
        (
            {"conversations": [{"from": "system", "value": "s"}, {"from": "gpt", "value": "a"}], "tools": ""},
            [system("s"), assistant("a")],
        ),
        ({"prompt": "\n\nHuman: q\n\nAssistant:", "completion": " a"}, [user("q"), assistant(" a")]),
        (
            {"prompt": json.dumps([user("q")]), "completion": json.dumps([assistant("a")])},  # of a CSV too
            [user("q"), assistant("a")],
        ),
        (  # JSON that is no list of turns is an answer
            {"prompt": "q", "completion": '[{"value": 1}]'},
            [user("q"), assistant('[{"value": 1}]')],
        ),
        (
            {"conversations": [{"from": "Human", "value": "q"}, {"from": "GPT", "value": "a"}], "system_prompt": "s"},
            [system("s"), user("q"), assistant("a")],
        ),
        (
            {"messages": [system("s"), user("q"), assistant("a")], "system": "s"},
            [system("s"), user("q"), assistant("a")],
        ),
        ({"instruction": "do", "input": " ", "output": "done"}, [user("do"), assistant("done")]),
    ],
)
def test_conversations(row, messages):
    assert training_example(row)["messages"] == messages


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
        {  # HH-RLHF
            "chosen": "\n\nHuman: q\n\nAssistant: good",
            "rejected": "\n\nHuman: q\n\nAssistant: bad",
        },
        {"instruction": "q", "input": "", "chosen": "good", "rejected": "bad"},
        {"chosen": json.dumps([user("q"), assistant("good")]), "rejected": json.dumps([user("q"), assistant("bad")])},
    ],
)
def test_preference_pairs(row):
    assert parts(preference_pair(row)) == PAIR


def test_a_multi_turn_prompt_is_the_shared_start():
    shared = [system("s"), user("1"), assistant("2"), user("3")]
    row = {"chosen": [*shared, assistant("good")], "rejected": [*shared, assistant("bad")]}
    assert parts(preference_pair(row)) == {
        "prompt": shared,
        "chosen": [assistant("good")],
        "rejected": [assistant("bad")],
    }


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"body": "plain"}, "found body, which is no known format"),
        ({"text": ""}, "`text`: found .*; allowed: a text that is not empty"),
        ({"prompt": "q", "chosen": "a", "rejected": "b"}, "is a preference pair"),
        ([1], "allowed: an object with named fields"),
        ({"messages": [user("q"), {"role": "tool", "content": "a"}]}, r"`messages\[1\]` is a tool turn \(tool\)"),
        ({"conversations": [{"from": "observation", "value": "x"}]}, "is a tool turn \\(observation\\)"),
        ({"messages": [user("q"), assistant("a")], "tools": [{"name": "f"}]}, "has `tools`"),
        ({"messages": [user("q"), {**assistant("a"), "weight": 0}]}, "which says not to learn it"),
        ({"messages": [user([{"type": "image"}]), assistant("a")]}, "has a part of type 'image'"),
        ({"messages": [user("q"), {**assistant("a"), "reasoning_content": "hm"}]}, "has `reasoning_content`"),
        ({"messages": [user("q"), assistant("\ud800")]}, "lone surrogate"),
        ({"messages": '[{"role": "user"', "id": 1}, "`messages` is a text with a list of turns, but not valid JSON"),
        (
            {"instruction": "do", "output": "x", "history": [["q"]]},
            r"`history\[0\]`: found .*; allowed: \[question, "
            "answer\]",
        ),
        ({"messages": []}, "`messages`: found .*; allowed: a list of turns"),
        ({"messages": "[" * 100_000}, "`messages`: found .*; allowed: a list of turns"),
        ({"messages": '[{"role":' + "[" * 100_000}, "not valid JSON .nested too deeply"),
        (
            {"prompt": "[{'role': 'user', 'content': 'q'}]", "completion": "a"},
            "`prompt` is a text with a list of turns, but",
        ),
        ({"messages": [{"role": ["user"], "content": "q"}]}, r"found the role \['user'\]; allowed: system"),
        (
            {"instruction": "do", "output": "x", "history": 3},
            "`history`: found 3; allowed: a list of",
        ),
        ({"instruction": "do", "input": 0, "output": "x"}, "`input`: found 0; allowed: a text that is not empty"),
        (
            {"messages": [user("q"), {**assistant("a"), "weight": 0.5}]},
            "found `weight` 0.5; allowed: 0, 1, true, false",
        ),
        ({"messages": [user("q"), {**assistant("a"), "loss_mask": 0}]}, "which says not to learn it"),
        (
            {"messages": [user("q"), assistant("a")], "functions": [{"name": "f"}]},
            "has `functions`, which OLMoE's chat",
        ),
        (
            {"messages": [system("s"), user("q"), assistant("a")], "system": "t"},
            "has `system` and also another system turn",
        ),
        ({"messages": "hello"}, "`messages`: found 'hello'; allowed: a list of turns"),
        ({"messages": ["hello"]}, r"`messages\[0\]`: found .*; allowed: a turn"),
        ({"messages": [user("q")]}, "no assistant turn"),
        (
            {"messages": [user("q"), {"role": "narrator", "content": "a"}]},
            r"`messages\[1\]`: found the role "
            "'narrator'",
        ),
        (
            {"messages": [user("q"), {"role": "assistant"}]},
            r"`messages\[1\]`: found .*; allowed: a text that is not "
            "empty",
        ),
        ({"messages": [user("q"), assistant("  ")]}, ": found '  '; allowed: a text that is not empty"),
        ({"messages": [user("q"), {**assistant("a"), "tool_calls": [1]}]}, "has `tool_calls`"),
        ({"instruction": 3, "output": "x"}, "`instruction`: found 3; allowed: a text"),
        ({"prompt": "q", "completion": None}, "`completion`: found nothing; allowed: a text that is not empty"),
    ],
)
def test_a_malformed_conversation_says_what_is_wrong(row, reason):
    with pytest.raises(RowError, match=reason):
        training_example(row)


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"prompt": "q", "chosen": "a"}, "found prompt, chosen; a preference pair needs `chosen` and `rejected`"),
        ({"prompt": "q", "chosen": "a", "rejected": " "}, "`rejected`: found .*; allowed: a text that is not empty"),
        ({"prompt": [user("q"), assistant("a")], "chosen": "b", "rejected": "c"}, "no prompt that ends with a user"),
        (
            {"chosen": "\n\nHuman: q\n\nAssistant: a", "rejected": "\n\nHuman: p\n\nAssistant: b"},
            "has no prompt",
        ),
        ({"chosen": "a", "rejected": "b"}, "has no prompt"),
        ({"chosen": [user("x"), assistant("a")], "rejected": [user("y"), assistant("b")]}, "has no prompt"),
        (
            {"prompt": "q", "chosen": [user("a")], "rejected": "b"},
            "`chosen` adds . turns to the prompt; allowed: one assistant turn",
        ),
        (
            {"prompt": "other", "chosen": [user("q"), assistant("a")], "rejected": [user("q"), assistant("b")]},
            "has a `prompt` that `chosen` and `rejected` do not share",
        ),
    ],
)
def test_a_malformed_pair_says_what_is_wrong(row, reason):
    with pytest.raises(RowError, match=reason):
        preference_pair(row)


def test_hh_rlhf_transcripts_of_several_turns():
    start = "\n\nHuman: 1\n\nAssistant: 2\n\nHuman: 3\n\nAssistant:"
    pair = preference_pair({"chosen": f"{start} good", "rejected": f"{start} bad"})
    assert pair["prompt"] == [user("1"), assistant("2"), user("3")]
    assert (pair["chosen"], pair["rejected"]) == ([assistant("good")], [assistant("bad")])


def test_a_system_text_beside_transcripts_is_kept():
    pair = preference_pair(
        {"system": "s", "chosen": [user("q"), assistant("a")], "rejected": [user("q"), assistant("b")]}
    )
    assert pair["prompt"] == [system("s"), user("q")] and pair["rejected"] == [assistant("b")]


def test_a_prompt_beside_transcripts_adds_what_they_lack():
    later = [assistant("1"), user("2")]
    pair = preference_pair({"prompt": "q", "chosen": [*later, assistant("a")], "rejected": [*later, assistant("b")]})
    assert parts(pair) == {"prompt": [user("q"), *later], "chosen": [assistant("a")], "rejected": [assistant("b")]}
    whole = {"chosen": [user("q"), assistant("a")], "rejected": [user("q"), assistant("b")]}
    assert preference_pair({"prompt": [system("s"), user("q")], **whole})["prompt"] == [system("s"), user("q")]


def test_plain_text():
    assert training_example({"text": "once upon"})["text"] == "once upon"
    assert training_example({"text": "once", "messages": None}, "text")["text"] == "once"


def test_a_named_format_is_not_guessed():
    row = {"messages": [user("q"), assistant("a")], "instruction": "do", "output": "done"}
    assert training_example(row, "alpaca")["messages"] == [user("do"), assistant("done")]
    with pytest.raises(RowError, match="which has no conversations; allowed"):
        training_example(row, "preference")
    with pytest.raises(RowError, match="which has no preference pairs; allowed: preference"):
        preference_pair(PAIR, "alpaca")


def test_a_prompt_to_answer_ends_with_a_user_turn():
    assert conversation_prompt({"messages": [user("q")], "answer": "a"}) == [user("q")]
    for row in ({"messages": [user("q"), assistant("a")]}, {"answer": "a"}, "text"):
        with pytest.raises(RowError):
            conversation_prompt(row)
