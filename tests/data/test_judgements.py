"""Judged answers: every form that a row may have, what its label may be, and what is said of other rows."""

import json
import re
from decimal import Decimal

import pytest

from olmoe_ft.data.formats import training_example
from olmoe_ft.data.judgements import judged_answers
from olmoe_ft.data.pairs import preference_pair
from olmoe_ft.data.rows import USUAL, Reading, RowError
from olmoe_ft.recipe.data_section import Source
from olmoe_ft.stages import STAGES

Q, A = {"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}
SYSTEM = {"role": "system", "content": "s"}
TURNS = [Q, A]
PAIR = {"prompt": "q", "chosen": "a", "rejected": "b"}
HH = "\n\nHuman: q\n\nAssistant: a"
NEEDED = "a judged answer needs a `label`, true if it is good and false if it is bad"


def label_of(value, **names):
    [answer] = judged_answers({"messages": TURNS, "label": value}, None, Reading(labels=names))
    return answer["label"]


def refusal(row, format=None, reading=USUAL):
    with pytest.raises(RowError) as error:
        judged_answers(row, format, reading)
    return str(error.value)


@pytest.mark.parametrize(
    ("row", "form", "prompt"),
    [
        # LLaMA-Factory: kto_en_demo.json, and its two forms with its own name of the label
        ({"messages": TURNS, "label": True}, "messages with a label", [Q]),
        ({"messages": [SYSTEM, Q, A, Q, A], "label": True}, "messages with a label", [SYSTEM, Q, A, Q]),
        (
            {
                "conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}],
                "kto_tag": True,
                "system": "s",
            },
            "sharegpt with a label",
            [SYSTEM, Q],
        ),
        ({"instruction": "q", "input": "", "output": "a", "kto_tag": True}, "alpaca with a label", [Q]),
        ({"messages": TURNS, "label": None, "kto_tag": True}, "messages with a label", [Q]),  # of a table
        # TRL: as texts, and as trl-lib/kto-mix-14k has them
        ({"prompt": "q", "completion": "a", "label": True}, "prompt_completion with a label", [Q]),
        ({"prompt": [SYSTEM, Q], "completion": [A], "label": True}, "prompt_completion with a label", [SYSTEM, Q]),
        ({"prompt": HH + "\n\nHuman: q\n\nAssistant:", "completion": "a", "label": True}, None, [Q, A, Q]),
        # HH-RLHF's text
        ({"text": HH, "label": True}, "text (transcript) with a label", [Q]),
        ({"text": HH.lstrip(), "label": True}, "text (transcript) with a label", [Q]),
        # a table, where every row has all keys
        ({"prompt": "q", "completion": "a", "label": 1, "chosen": None, "rejected": None}, None, [Q]),
        ({"prompt": "q", "completion": "a", "label": 1, "rejected": False}, None, [Q]),  # a flag, no answer
        ({"messages": json.dumps(TURNS), "label": "1"}, "messages with a label (as JSON text)", [Q]),
    ],
)
def test_forms(row, form, prompt):
    [answer] = judged_answers(row)
    assert (answer["prompt"], answer["completion"], answer["label"]) == (prompt, [A], True)
    assert form in (answer["form"], None)
    assert not answer["unread"] or answer["unread"] == ["rejected"]


def test_a_text_beside_others_is_read_where_the_recipe_says_so():
    row = {"text": HH, "label": 0, "source": "hh"}
    assert "set the source's `format: text` to read only `text`" in refusal(row)
    [answer] = judged_answers(row, "text")
    assert (answer["label"], answer["unread"]) == (False, ["source"])


@pytest.mark.parametrize("format", [None, "preference"])
def test_a_pair_is_split_into_two_rows(format):
    good, bad = judged_answers(PAIR | {"label": None}, format)
    assert (good["completion"], good["label"]) == ([A], True)
    assert (bad["completion"], bad["label"]) == ([{"role": "assistant", "content": "b"}], False)
    assert good["prompt"] == bad["prompt"] == [Q]
    assert good["form"] == bad["form"] == "prompt and two answers split in two"


def test_a_pair_needs_no_label_and_both_answers():
    labelled = PAIR | {"label": True}
    assert "whose answers need no label, but has `label`; leave it out with `ignore: [label]`" in refusal(labelled)
    assert len(judged_answers(labelled, None, Reading(ignore=frozenset(["label"])))) == 2
    assert refusal(PAIR | {"rejected": ""}) == "`rejected`: found ''; allowed: a text that is not empty"


@pytest.mark.parametrize(
    ("value", "good"),
    [(True, True), (False, False), (1, True), (0, False), (1.0, True), (0.0, False), ("true", True), ("False", False)]
    + [("1", True), ("0", False), ("1.0", True), (" TRUE ", True)],
)
def test_labels_without_names(value, good):
    assert label_of(value) is good


@pytest.mark.parametrize(
    ("names", "values"),
    [
        ({"good": True, "bad": False}, {"good": True, "BAD": False}),
        ({"Good": True, "Bad": False}, {"good": True, "bad ": False}),
        ({"1": True, "-1": False}, {1: True, -1.0: False, "-1": False, "1.0": True}),
        ({"5": True, "4": True, "1": False}, {5: True, 4.0: True, "1": False}),
        ({"1.0": True, "0.5": False}, {1: True, 0.5: False}),
        ({"true": False, "false": True}, {True: False, "False": True}),  # whether it is rejected
        ({"yes": True, "no": False}, {"Yes": True, "no": False}),
    ],
)
def test_labels_with_names(names, values):
    source = Source(path="x", labels=names)
    assert {value: label_of(value, **source.labels) for value in values} == values


def test_names_take_the_place_of_the_usual_ones():
    said = refusal({"messages": TURNS, "label": True}, None, Reading(labels={"good": True, "bad": False}))
    assert said.startswith("`label`: found True; allowed: good, bad; name it in the source's `labels` too")


@pytest.mark.parametrize(
    ("value", "remedy"),
    [
        ("maybe", "found 'maybe'; allowed: true, false, 1, 0; say below the source's `path` what the labels mean, as"),
        ("yes", "labels: {good: true, bad: false}"),
        (2, 'labels: {"5": true, "1": false}'),
        (10**400, 'labels: {"5": true, "1": false}'),
        pytest.param("1" + 400 * "0", "write true for scores above a threshold", id="huge"),
        (-1, 'as in   labels: {"1": true, "-1": false}'),
        ("-1.0", 'as in   labels: {"1": true, "-1": false}'),
        (b"1", "found b'1'; allowed: true, false, 1, 0; write it as a text, a number, true or false in place of a"),
        (Decimal(1), "true or false in place of a value of type Decimal"),
        (0.5, "found 0.5; allowed: true, false, 1, 0; write true for scores above a threshold that you choose"),
        ("0.5", "write true for scores above a threshold"),
        (float("inf"), "write true for scores above a threshold"),
        ([True, False], "found [True, False]; allowed: true, false, 1, 0; give one label, of the last turn"),
        ({"good": True}, "give one label, of the last turn"),
        (None, "label (null); " + NEEDED),
        (float("nan"), NEEDED),
        (" ", NEEDED),
        ([], NEEDED),
    ],
)
def test_wrong_labels(value, remedy):
    assert remedy in refusal({"messages": TURNS, "label": value})


@pytest.mark.parametrize(
    ("key", "value", "remedy"),
    [
        ("id", 3, "found messages, id; " + NEEDED + "; add it, or rename its key with `columns`"),
        ("thumbs_up", True, "if `thumbs_up` judges the answer, add   columns: {thumbs_up: label}   below the source's"),
        ("feedback", "good", "columns: {feedback: label}, labels: {good: true, bad: false}   below the source's"),
        ("Rating", 4, 'columns: {Rating: label}, labels: {"5": true, "1": false}   below the source\'s'),
        ("rating", 4.0, 'columns: {rating: label}, labels: {"5": true, "1": false}'),
        ("rating", -1, 'columns: {rating: label}, labels: {"1": true, "-1": false}'),
        ("score", 10**400, 'columns: {score: label}, labels: {"5": true, "1": false}'),
        ("score", 0.7, "if `score` judges the answer, add a `label`: write true for scores above a threshold"),
        ("score", "0.7", "write true for scores above a threshold"),
        ("is_safe", False, "columns: {is_safe: label}"),
        ("winner", "model_a", "columns: {winner: label}, labels: {good: true, bad: false}"),
    ],
)
def test_a_key_that_may_have_the_label_is_named(key, value, remedy):
    assert remedy in refusal({"messages": TURNS, key: value})


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"messages": [*TURNS, Q]}, "its last turn is of the user; the `label` judges the last turn, of the assistant"),
        ({"messages": [SYSTEM]}, "its last turn is of the system"),
        ({"messages": [SYSTEM, A]}, "has no user turn before the answer that its `label` judges"),
        ({"messages": [A]}, "has no user turn before the answer"),
        ({"messages": [Q, A, A]}, "has no user turn before the answer"),
        ({"messages": []}, "`messages`: found []; allowed: a list of turns"),
        ({"messages": [Q, A | {"content": ""}]}, "`messages[1]`: found ''; allowed: a text that is not empty"),
        (
            {"messages": [Q, A | {"label": True}]},
            "`messages[1]` has `label`, a judgement that this stage does not use;",
        ),
        ({"prompt": "q", "completion": " "}, "`completion`: found ' '; allowed: a text that is not empty"),
        ({"prompt": "q", "completion": None}, "`completion`: found nothing; allowed: a text that is not empty"),
        ({"prompt": "q", "response": "a"}, "It can be read if you add   columns: {response: completion}   below"),
        ({"text": "a document"}, "`text` is no conversation; allowed with a `label`: HH-RLHF's format"),
        ({"messages": TURNS, "kto_tag": False}, "has both `label` and `kto_tag`; leave one out with `ignore: [kto_tag"),
        ({"messages": TURNS, "winner": "a"}, "the row has `winner`, a judgement that this stage does not use;"),
        ({"messages": TURNS, "images": ["a.jpg"]}, "has `images`, which OLMoE's chat format cannot express"),
    ],
)
def test_what_is_no_judged_answer(row, said):
    assert said in refusal(row | {"label": True})


def test_a_pair_with_other_names_gets_its_line():
    """The line of stage dpo, though the row has no label either; and with that line it is read."""
    row = {"prompt": "q", "preferred": "a", "dispreferred": "b"}
    line = ". It can be read if you add   columns: {preferred: chosen, dispreferred: rejected}   below the source's"
    assert refusal(row).startswith(f"found prompt, preferred, dispreferred; {NEEDED}{line}")
    with pytest.raises(RowError, match=re.escape(line)):
        preference_pair(row)
    assert "add a `label`" not in refusal({"messages": TURNS, "accepted": True, "declined": False})  # flags, no answers
    assert "columns: {accepted: label}" in refusal({"messages": TURNS, "accepted": True, "declined": False})


def test_rows_inside_another_object_are_seen_though_it_has_no_label():
    rows = [{"prompt": "q", "completion": "a", "label": True}] * 2
    assert refusal({"data": rows}) == (
        f"found data; {NEEDED}. It has a list in `data`: if that list has the rows, write them to a separate file"
    )
    assert refusal({"messages": TURNS, "sources": rows}).endswith("; add it, or rename its key with `columns`")


def test_a_row_that_is_no_pair_is_not_called_one():
    said = refusal({"messages": TURNS, "label": True}, "preference")
    assert said.startswith("found messages, label; a preference pair needs `chosen` and `rejected`")


@pytest.mark.parametrize(
    ("judged", "form"),
    [({"prompt": "q", "completion": "c"}, "prompt_completion"), ({"messages": TURNS}, "messages")],
)
def test_a_judged_answer_beside_a_pair_can_be_read_too(judged, form):
    """`ignore: [label]` alone would leave the judged answer out; both remedies do what they say."""
    row = {**judged, "chosen": "x", "rejected": "y", "label": False}
    said = refusal(row)
    assert said.endswith(
        "leave it out with `ignore: [label]` below the source's `path`, or read its judged answer in place of the pair "
        f"with `format: {form}`"
    )
    [answer] = judged_answers(row, form)
    assert answer["label"] is False and answer["doubtful"] == ["chosen", "rejected"]


def test_a_label_that_the_recipe_leaves_out():
    said = refusal({"messages": TURNS, "label": True}, None, Reading(ignore=frozenset(["label"])))
    assert said == "has no label, because `ignore` leaves `label` out; remove it there"


@pytest.mark.parametrize("key", ["label", "kto_tag"])
@pytest.mark.parametrize(("read", "row"), [(training_example, {"messages": TURNS}), (preference_pair, PAIR)])
def test_other_stages_name_the_stage_that_reads_a_label(read, row, key):
    [labelled] = [stage.name for stage in STAGES.values() if stage.labelled]
    with pytest.raises(
        RowError, match=rf"`{key}`, a judgement that .* \(stage {labelled} learns from it\); remove .* "
    ):
        read(row | {key: False})
    with pytest.raises(RowError, match="`winner`, a judgement that this stage does not use; remove"):
        read(row | {"winner": "a"})
