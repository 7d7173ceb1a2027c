"""A row is never read as something else in silence: keys that nobody reads, marks of turns, nearly known forms."""

import json
import re

import pytest

from olmoe_ft.data.formats import training_example
from olmoe_ft.data.pairs import preference_pair
from olmoe_ft.data.rows import KEYS_SHOWN, VALUE_SHOWN, Reading, RowError

OBEY = Reading(obey_marks=True)


def user(text, **more):
    return {"role": "user", "content": text, **more}


def assistant(text, **more):
    return {"role": "assistant", "content": text, **more}


TURNS = [user("q"), assistant("a")]


def learned(row, reading=OBEY):
    found = training_example(row, reading=reading)
    return [turn["content"] for turn, is_learned in zip(found["messages"], found["learned"], strict=True) if is_learned]


@pytest.mark.parametrize(
    ("row", "form"),
    [
        ({"messages": TURNS}, "messages"),
        ({"conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]}, "sharegpt"),
        ({"prompt": "q", "completion": "a"}, "prompt_completion"),
        ({"prompt": "\n\nHuman: q\n\nAssistant:", "completion": "a"}, "prompt_completion (transcript)"),
        ({"instruction": "q", "output": "a"}, "alpaca"),
        ({"text": "a"}, "text"),
        ({"text": "a", "messages": None, "prompt": ""}, "text"),  # a table gives every row all keys
        ({"messages": [], "prompt": "q", "completion": "a"}, "prompt_completion"),
    ],
)
def test_what_a_row_was_read_as(row, form):
    assert training_example(row)["form"] == form


def test_what_a_pair_was_read_as():
    answers = preference_pair({"prompt": "q", "chosen": "a", "rejected": "b"})
    whole = preference_pair({"chosen": TURNS, "rejected": [user("q"), assistant("b")]})
    assert (answers["form"], whole["form"]) == ("prompt and two answers", "pairs of whole conversations")


@pytest.mark.parametrize(
    ("more", "unread", "doubtful"),
    [
        ({"id": "x", "score": 3, "empty": None, "none": []}, ["id", "score"], []),
        ({"text": "q a"}, ["text"], ["text"]),  # another version of the row
        ({"prompt": "q"}, ["prompt"], []),  # repeats what was read
        ({"prompt": "another question"}, ["prompt"], ["prompt"]),
        ({"chosen": TURNS, "rejected": [user("q"), assistant("b")]}, ["chosen", "rejected"], ["rejected"]),
        ({"is_safe": False}, ["is_safe"], ["is_safe"]),  # a judgement, perhaps
        ({"output": "x"}, ["output"], ["output"]),
        ({"rationale": "a long thought " * 10}, ["rationale"], ["rationale"]),
        ({"rationale": "short"}, ["rationale"], []),
        ({"thought": "思考" * 20}, ["thought"], ["thought"]),  # twenty words and more without spaces
        ({"rounds": ["one two three four five"] * 4}, ["rounds"], ["rounds"]),
        ({"answer": 42}, ["answer"], ["answer"]),
        ({"output": "no"}, ["output"], ["output"]),
        ({"is_correct": "False", "correct": 0}, ["is_correct", "correct"], ["is_correct", "correct"]),  # of a CSV
        ({"image_width": 3, "num_images": 0}, ["image_width", "num_images"], []),
        ({"\ud800k": "x"}, ["\\ud800k"], []),
        ({"weight": 1, "train": True}, ["weight", "train"], ["train"]),  # says what is done anyway
    ],
)
def test_keys_that_were_not_read_are_named_and_those_that_may_matter_apart(more, unread, doubtful):
    found = training_example({"messages": TURNS, **more})
    assert (found["unread"], found["doubtful"]) == (unread, doubtful)


def test_a_long_text_of_a_turn_that_was_not_read_may_matter():
    found = training_example({"messages": [user("q"), assistant("a", plan="first this, then that " * 9)]})
    assert found["unread"] == found["doubtful"] == ["messages[].plan"]


def test_keys_of_turns_that_were_not_read_are_named_once():
    found = training_example({"messages": [user("q", name="Ann"), assistant("a", name="Bob", id="7")]})
    assert found["unread"] == ["messages[].name", "messages[].id"]


MEDIA = ("images", "image", "image_path", "imageUrl", "input-image", "videos", "audios", "input_audio")
OTHERS = ("tools", "functions", "function_call", "label", "kto_tag")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *((key, value) for key in MEDIA for value in (["a.jpg"], "x", {"url": "x"}, [None, "x"])),
        *((key, value) for key in OTHERS for value in ([{"name": "f"}], True, False, "x")),
    ],
)
def test_a_key_that_carries_a_part_of_the_example_is_an_error(key, value):
    for row, read in (
        ({"messages": TURNS}, training_example),
        ({"text": "a"}, lambda row, **more: training_example(row, "text", **more)),
        ({"prompt": "q", "chosen": "a", "rejected": "b"}, preference_pair),
    ):
        with pytest.raises(RowError, match=f"has `{key}`, .*`ignore: .{key}.`"):
            read({**row, key: value})
        assert key in read({**row, key: value}, reading=Reading(ignore=frozenset([key])))["unread"]
        for empty in (None, [], "", "[]", float("nan")):
            assert key not in read({**row, key: empty})["unread"]


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("shot", "https://x/a.jpg?w=1", "has `shot`, which"),
        ("media", {"image": "x"}, "has `media`, which"),
        ("weight", "0", "has `weight` '0', which"),
        ("weight", "0.5", "has `weight` '0.5', which"),
        ("mask", [0, 0, 1], r"has `mask` \[0, 0, 1\], which may say which turns to learn"),
        ("train_turns", [False, True], "has `train_turns`"),
        ("labels", 0, "has `labels`, a judgement"),
        ("winner", "model_b", "has `winner`, a judgement"),
        ("picture", "data:image/png;base64,xx", "has `picture`"),
        ("train", "False", "has `train` 'False', which"),
        ("file", "cat.JPG", "has `file`, which OLMoE's chat format cannot express"),
        ("scene", ["a/b.mp4"], "has `scene`, which"),
        ("picture", {"bytes": None, "path": "x"}, "has `picture`, which"),
        ("raw", b"\x89PNG", "has `raw`, which"),
        ("weight", 0.0, "has `weight` 0.0, which this stage does not obey"),
        ("train", False, "has `train` False, which"),
        ("loss_weight", 0.5, "has `loss_weight` 0.5, which"),
        pytest.param("weight", 10**400, "has `weight` 1000", id="huge"),
        ("loss_mask", [0, 1], r"has `loss_mask` \[0, 1\], which"),
    ],
)
def test_what_a_row_holds_is_known_by_its_value_too(key, value, said):
    with pytest.raises(RowError, match=said):
        training_example({"messages": TURNS, key: value})


@pytest.mark.parametrize(
    ("turn", "said"),
    [
        (assistant("a", toxic=False), "has `toxic`: False, which may say how to learn it"),
        (assistant("a", toxic=True, score=0.5), "has `toxic`: True, `score`: 0.5, .*`ignore: .toxic, score.`"),
        (assistant("a", images=["a.jpg"]), "has `images`"),
        (assistant("a", train_detail=[{"begin_offset": 0, "train": False}]), "has `train_detail`"),
        (assistant("a", metadata={"train": False}), "has `metadata`"),
        (assistant("a", masked="true"), "has `masked`: 'true'"),
        (assistant("a", reasoning="hm"), "has `reasoning`"),
        (assistant("a", channel="analysis"), "is in the channel 'analysis'"),
        (assistant("a", recipient="functions.f"), "has `recipient`"),
        (assistant([{"role": "user", "content": "a"}]), "found a message with a role; allowed: a text"),
        (assistant([{"type": "text", "text": "a", "train": False}]), "a part of .* has `train`: False"),
        (assistant([{"type": "text", "text": "a", "image": "a.jpg"}]), "a part of .* has `image`"),
        (assistant([{"type": "text"}]), "has a part of type 'text'"),
        (assistant([{"type": "image_url", "text": "a"}]), "has a part of type 'image_url'"),
        (assistant("a", value="b"), "has both `content` and `value`, which differ"),
        (assistant("a", train=True, loss=False), "`train`: True, `loss`: False, which contradict each other"),
        (assistant("a", weight=0.5), "found `weight` 0.5; allowed: 0, 1, true, false"),
        (assistant("a", train="no"), "found `train` 'no'; allowed: 0, 1, true, false"),
        (user("b", train=True), "has `train`: True, but a user turn is never learned"),
    ],
)
def test_an_unknown_mark_of_a_turn_is_an_error(turn, said):
    for reading in (Reading(), OBEY):
        with pytest.raises(RowError, match=said):
            training_example({"messages": [user("q"), assistant("x"), turn]}, reading=reading)


def test_a_key_of_a_turn_can_be_left_unread():
    row = {"messages": [user("q"), assistant([{"text": "a", "seen": True}], toxic=False, id=3)]}
    reading = Reading(ignore=frozenset(["toxic", "id", "seen"]))
    assert learned(row, reading) == ["a"]
    found = training_example(row, reading=reading)
    assert found["unread"] == ["messages[].toxic", "messages[].id", "content[].seen"] and not found["doubtful"]


def test_keys_of_content_parts_that_were_not_read_are_named():
    part = {"type": "text", "text": "q", "citation": "from the long book " * 9, "cache_control": {"type": "ephemeral"}}
    found = training_example({"messages": [user([part]), assistant("a")]})
    assert (found["unread"], found["doubtful"]) == (
        ["content[].citation", "content[].cache_control"],
        ["content[].citation"],
    )


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": None, "completion": "x"},
        {"completion": "x", "question": "y"},
        {"instruction": None, "input": "", "output": "x"},
        {"instruction": "", "input": "", "output": "x"},
        {"instruction": "", "input": "", "output": "x", "text": "Below is x"},
        {"prompt": "", "completion": "x", "text": "x"},
        {"prompt": [], "completion": "x"},
    ],
)
@pytest.mark.parametrize("format", [None, "prompt_completion", "alpaca"])
def test_an_answer_without_its_question_is_no_row(row, format):
    with pytest.raises(RowError):
        training_example(row, format)


def test_a_prompt_that_ends_with_an_answer_has_no_second_one():
    with pytest.raises(RowError, match="ends with an assistant turn"):
        training_example({"prompt": TURNS, "completion": "b"})
    with pytest.raises(RowError, match="ends with an assistant turn"):
        training_example({"prompt": "\n\nHuman: q\n\nAssistant: Let me", "completion": " see"})


def test_a_message_in_the_place_of_a_text_keeps_its_role():
    system = {"role": "system", "content": "x"}
    assert training_example({"prompt": system, "completion": "c"})["messages"] == [system, assistant("c")]
    assert training_example({"prompt": user("q"), "completion": assistant("a")})["messages"] == TURNS
    with pytest.raises(RowError, match="has no assistant turn"):
        training_example({"prompt": user("q"), "completion": user("x")})
    with pytest.raises(RowError, match="found a message with a role"):
        training_example({"instruction": "q", "output": {"from": "human", "value": "x"}})


def test_turns_in_columns_and_under_other_roles():
    columns = {"role": ["developer", "user ", "Chatbot"], "content": ["s", "q", "a"]}  # as some Parquet files hold them
    assert training_example({"messages": columns})["messages"] == [{"role": "system", "content": "s"}, *TURNS]


def test_turns_as_json_text_are_told():
    found = training_example({"prompt": "q", "completion": json.dumps([assistant("a")])})
    assert found["form"] == "prompt_completion (as JSON text)"


def test_a_transcript_behind_other_text_is_told():
    found = training_example({"prompt": "You are X.\n\nHuman: q\n\nAssistant:", "completion": "a"})
    assert found["doubtful"] == ["prompt (looks like a transcript, but was read as one turn)"]


def test_openais_preference_files():
    row = {"input": {"messages": [user("q")], "tools": []}, "preferred_output": [assistant("a")]}
    row |= {"non_preferred_output": [assistant("b")]}
    line = "columns: {preferred_output: chosen, non_preferred_output: rejected, input: prompt}"
    with pytest.raises(RowError, match=re.escape(line)):
        preference_pair(row)
    pair = preference_pair({"prompt": row["input"], "chosen": [assistant("a")], "rejected": [assistant("b")]})
    assert pair["prompt"] == [user("q")]


@pytest.mark.parametrize("input", ["{}", "[]", "null"])
def test_a_question_that_looks_like_nothing_in_json_stays(input):
    row = {"instruction": "Is this JSON?", "input": input, "output": "Yes"}
    assert training_example(row)["messages"][0] == user(f"Is this JSON?\n\n{input}")


@pytest.mark.parametrize(
    "completion",
    [
        '[{"id": "1", "role": "assistant", "content": "a"}]',
        '[{"name": null, "from": "gpt", "value": "a"}]',
    ],
)
def test_turns_as_json_text_are_turns_whatever_key_is_first(completion):
    assert training_example({"prompt": "q", "completion": completion})["messages"] == TURNS


@pytest.mark.parametrize(
    "answer",
    [
        '{"a": 1}',
        '{"from": "USD", "value": "5"}',
        '{"role": "assistant", "content": "a"}',
        '[{"role": "x"}]',
        "[{",
        '{"role": "admin", "level": 3}',
    ],
)
def test_an_answer_in_json_stays_an_answer(answer):
    assert training_example({"prompt": "q", "completion": answer})["messages"][1] == assistant(answer)


@pytest.mark.parametrize("key", ["train", "trainable", "loss", "loss_mask", "weight", "loss_weight"])
@pytest.mark.parametrize(("no", "yes"), [(False, True), (0, 1), (0.0, 1.0)])
def test_marks_are_obeyed_where_the_recipe_says_so_and_refused_elsewhere(key, no, yes):
    row = {"messages": [user("1"), assistant("a", **{key: no}), user("2"), assistant("b", **{key: yes})]}
    assert learned(row) == ["b"]
    with pytest.raises(RowError, match=f"`{key}`: {no}, which says not to learn it.*data.turn_marks: obey"):
        training_example(row)


def test_marks_that_say_what_is_done_anyway_are_no_error():
    """Many ShareGPT files mark the human's turns with 0 and the others with 1."""
    row = {"messages": [user("1", weight=0), assistant("a", weight=1), user("2", weight=None), assistant("b")]}
    assert learned(row, Reading()) == learned(row) == ["a", "b"]


def test_a_row_without_anything_to_learn_is_not_learned():
    assert learned({"messages": [user("1"), assistant("a", train=False)]}) == []


def test_which_answers_are_learned():
    turns = [user("1"), assistant("a"), user("2"), assistant("b")]
    completion = {"prompt": turns[:3], "completion": turns[3:]}
    assert learned({"messages": turns}, Reading()) == ["a", "b"]
    assert learned({"messages": turns}, Reading("last_answer")) == ["b"]
    assert learned(completion, Reading()) == ["a", "b"]
    assert learned(completion, Reading("completion")) == learned(completion, Reading("last_answer")) == ["b"]
    history = {"instruction": "2", "output": "b", "history": [["1", "a"]]}
    assert learned(history, Reading("completion")) == ["b"]
    with pytest.raises(RowError, match="was read as messages, which has no completion apart from its prompt"):
        training_example({"messages": turns}, reading=Reading("completion"))
    marked = [*turns[:3], assistant("b", train=False)]
    assert learned({"messages": marked}, Reading("last_answer", obey_marks=True)) == []


@pytest.mark.parametrize(
    ("row", "messages"),
    [
        ({"messages": [{"role": "system", "content": ""}, *TURNS]}, TURNS),
        ({"messages": [{"role": "system", "content": None}, *TURNS]}, TURNS),
        ({"messages": [{"role": "system", "content": " \n"}, *TURNS]}, TURNS),
        ({"messages": TURNS, "system": ""}, TURNS),
        ({"messages": [{"role": "system", "content": [{"type": "text", "text": ""}]}, *TURNS]}, TURNS),
        ({"instruction": "q", "output": "a", "history": "[]"}, TURNS),  # of a CSV
        ({"instruction": "q", "output": "a", "history": '[["1", "b"]]'}, [user("1"), assistant("b"), *TURNS]),
        ({"instruction": "", "input": "q", "output": "a"}, TURNS),
        ({"instruction": None, "input": "q", "output": "a"}, TURNS),
        ({"messages": [user([{"type": "text", "value": "q"}]), assistant([{"type": "text", "text": "a"}])]}, TURNS),
        ({"messages": [user([{"type": "input_text", "text": "q"}]), assistant("a")]}, TURNS),
        ({"messages": [user("q"), assistant([{"type": "output_text", "output_text": "a"}])]}, TURNS),
        ({"messages": [user([{"text": "q"}]), assistant([{"text": "a"}])]}, TURNS),
        ({"messages": [user("q"), assistant({"type": "text", "text": "a"})]}, TURNS),
    ],
)
def test_forms_that_people_have(row, messages):
    assert training_example(row)["messages"] == messages


@pytest.mark.parametrize(
    ("row", "columns"),
    [
        ({"question": "q", "answer": "a"}, "{question: prompt, answer: completion}"),
        ({"query": "q", "response": "a"}, "{query: prompt, response: completion}"),
        ({"problem": "q", "solution": "a"}, "{problem: prompt, solution: completion}"),
        ({"prompt": "q", "response": "a"}, "{response: completion}"),
        ({"instruction": "q", "context": "c", "response": "a"}, "{context: input, response: output}"),
        ({"instruction": "q", "response": "a"}, "{response: output}"),
        ({"input": "q", "output": "a"}, "{input: prompt, output: completion}"),
        ({"input": "q", "output": "a", "text": "q a"}, "{input: prompt, output: completion}"),
        ({"conversation": TURNS}, "{conversation: messages}"),
        ({"Question": "q", "Answer": "a"}, "{Question: prompt, Answer: completion}"),
        ({"inputs": "q", "targets": "a"}, "{inputs: prompt, targets: completion}"),
        ({"problem": "q", "solution": "because, 1", "answer": "1"}, "{problem: prompt, solution: completion}"),
        ({"instruction": "q", "input": "i", "context": "c", "response": "a"}, "{response: output}"),
        ({"instruction": "q", "context": "", "response": "a"}, "{context: input, response: output}"),
    ],
)
def test_a_nearly_known_form_comes_with_the_line_that_reads_it(row, columns):
    with pytest.raises(RowError) as error:
        training_example(row)
    assert f"columns: {columns}" in str(error.value)
    names = dict(pair.split(": ") for pair in columns.strip("{}").split(", "))
    assert training_example({names.get(key, key): value for key, value in row.items()})["messages"]


def test_the_line_is_printed_for_an_odd_row_too():
    with pytest.raises(
        RowError, match="Rows with these keys can be read if you add   columns: {question: prompt, answer: comp"
    ):
        training_example({"question": "q", "answer": None})


def test_a_nearly_known_pair_comes_with_the_line_that_reads_it():
    with pytest.raises(RowError, match="columns: {preferred: chosen, dispreferred: rejected, query: prompt}"):
        preference_pair({"query": "q", "preferred": "a", "dispreferred": "b"})


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"text": "a", "meta": {"url": "x"}}, "has `text`, but also meta with text; set the source's `format: text`"),
        ({"text": "a", "role": "prompter", "parent_id": "b"}, "part of a message tree .`parent_id`."),
        ({"prompt": {"text": "a", "role": "prompter", "replies": []}, "message_tree_id": "x"}, "message tree"),
        (
            {"version": "1", "data": [{"prompt": "q"}, {"prompt": "r"}]},
            "It has a list in `data`: if that list has the rows",
        ),
        (
            {"instruction": "do", "output": None, "text": "do x"},
            "`output`: found .*; allowed: a text that is not empty",
        ),
    ],
)
def test_text_wins_only_where_no_other_key_holds_text(row, said):
    with pytest.raises(RowError, match=said):
        training_example(row)
    if "text" in row:
        assert training_example(row, "text")["text"] == row["text"]


def test_a_pair_whose_prompt_has_another_name_comes_with_the_line():
    with pytest.raises(RowError, match="columns: {input: prompt}"):
        preference_pair({"input": "q", "chosen": "a", "rejected": "b"})


@pytest.mark.parametrize(
    "row",
    [
        {"conversation": [{"input": "q", "output": "a"}]},
        {"dialog": ["q", "a"]},
        {"question": "q", "choices": ["a", "b"], "answer": 1},
        {"items": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]},
    ],
)
def test_no_line_is_printed_that_would_not_read_the_rows(row):
    with pytest.raises(RowError) as error:
        training_example(row)
    assert "columns:" not in str(error.value) and "if these are the rows" not in str(error.value)


def test_messages_are_bounded_and_escaped():
    """Ten keys and 200 characters a value, whatever a row holds; control codes do not reach the terminal."""
    many = {f"key{number}": "v" for number in range(50)}
    with pytest.raises(RowError) as error:
        training_example(many)
    assert len(str(error.value)) < 600
    assert f"key{KEYS_SHOWN - 1} and 40 more" in str(error.value) and f"key{KEYS_SHOWN}," not in str(error.value)
    with pytest.raises(RowError) as error:
        training_example({"messages": "x" * 10_000})
    assert len(str(error.value)) < VALUE_SHOWN + 100
    for odd in (
        {"messages": [{"role": "\x1b[2J\u202e", "content": "a"}]},
        {"\x1b[2J\u202e" * 999: "x"},
        {"messages": [{**user("a"), **{f"{key}\x1b" * 999: 1 for key in range(500)}}]},
        {"messages": [user([{"type": "text", **{f"key{key}": 1 for key in range(500)}}])]},
    ):
        with pytest.raises(RowError) as error:
            training_example(odd)
        assert str(error.value).isprintable() and len(str(error.value)) < 6000
