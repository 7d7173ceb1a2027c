"""Files of judged answers: what a table makes of labels, rows without one, pairs, and the audit of all of them."""

import csv
import io
import json

import pyarrow
import pytest
from pyarrow import parquet

from olmoe_ft.data.audit import audit
from olmoe_ft.data.audit_report import data_report, print_audit
from olmoe_ft.data.sources import load_source
from olmoe_ft.data.terminal import Console
from olmoe_ft.recipe import RecipeError
from olmoe_ft.recipe.data_section import Data, Source
from olmoe_ft.stages import STAGES

TURNS = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]
PAIR = {"prompt": "q", "chosen": "a", "rejected": "b"}
NEEDED = "a judged answer needs a `label`, true if it is good and false if it is bad"


def written(folder, rows, name="rows.jsonl"):
    (folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(folder / name)


def loaded(source, **data):
    return load_source(source, STAGES["kto"], Data(train=(source,), **data))[0]


ROWS = [{"prompt": "q", "completion": "a", "label": label} for label in (True, False, True)]


def test_what_is_advised_can_be_read(tmp_path):
    rows = [{"messages": TURNS, "rating": rating} for rating in (5, 1, 5.0)]
    source = Source(path=written(tmp_path, rows), columns={"rating": "label"}, labels={"5": True, "1": False})
    assert loaded(source)["label"] == [True, False, True]


def test_a_label_of_every_kind_of_file(tmp_path):
    with (tmp_path / "rows.csv").open("w") as file:  # csv writes True, False: texts
        table = csv.DictWriter(file, ["prompt", "completion", "label"])
        table.writeheader()
        table.writerows(ROWS)
    (tmp_path / "rows.json").write_text(json.dumps(ROWS))
    written(tmp_path, ROWS)
    for name, kind in (("bool", pyarrow.bool_()), ("int8", pyarrow.int8()), ("double", pyarrow.float64())):
        labels = pyarrow.array([row["label"] for row in ROWS]).cast(pyarrow.int8()).cast(kind)
        columns = pyarrow.table({"prompt": ["q"] * 3, "completion": ["a"] * 3, "label": labels})
        parquet.write_table(columns, tmp_path / f"{name}.parquet")
    names = ("rows.csv", "rows.json", "rows.jsonl", "bool.parquet", "int8.parquet", "double.parquet")
    assert {name: loaded(Source(path=str(tmp_path / name)))["label"] for name in names} == dict.fromkeys(
        names, [True, False, True]
    )


def test_a_row_without_a_label_stops_with_its_place_or_is_dropped(tmp_path):
    labels = pyarrow.array([True, None, False])
    columns = pyarrow.table({"prompt": ["q"] * 3, "completion": ["a"] * 3, "label": labels})
    parquet.write_table(columns, path := tmp_path / "rows.parquet")
    with pytest.raises(
        RecipeError, match=rf"rows.parquet, row 2: found prompt, completion, label \(null\); {NEEDED}; add"
    ):
        loaded(Source(path=str(path)))
    rows = loaded(Source(path=str(path)), malformed="drop")
    assert rows["label"] == [True, None, False] and rows["problem"][1].startswith("found prompt, completion, label")


def test_two_rows_of_a_pair_have_one_place(tmp_path):
    rows = loaded(Source(path=written(tmp_path, [PAIR, ROWS[1]])))
    assert (rows["place"], rows["label"]) == ([":1", ":1", ":2"], [True, False, False])


@pytest.mark.parametrize("more", [{}, {"label": None}, {"label": "up"}])
def test_labels_that_no_row_has_are_an_error(tmp_path, more):
    """Of pairs: without the key, with an empty one as in a table, and with one that is ignored."""
    path = written(tmp_path, [PAIR | more] * 2)
    source = Source(path=path, labels={"up": True, "down": False}, ignore=["label"] if more.get("label") else [])
    with pytest.raises(
        RecipeError, match="rows.jsonl: no row has a label or kto_tag, whose values `labels` names; rem"
    ):
        loaded(source)
    assert loaded(source.model_copy(update={"labels": {}}))["label"] == [True, False] * 2


def test_labels_that_one_row_has_are_no_error(tmp_path):
    rows = [PAIR, {"prompt": "q", "completion": "a", "thumb": "down"}, PAIR]
    source = Source(path=written(tmp_path, rows), labels={"up": True, "down": False}, columns={"thumb": "label"})
    assert loaded(source)["label"] == [True, False, False, True, False]


def test_the_two_rows_of_a_pair_are_no_copies(write, mixture):
    """A prompt of 300 words and answers of three: by words alone their similarity is about 0.97. Of the two pairs after
    them one is a copy, so both its rows are, and the other differs in a word of the prompt. In the last row alone the
    label differs from that of an earlier one.
    """
    asked = " ".join(f"w{number}" for number in range(300))
    pair = {"prompt": asked, "chosen": "yes it is", "rejected": "no it is not"}
    rows = [pair, pair, pair | {"prompt": asked + " please"}]
    rows.append({"prompt": asked, "completion": "yes it is", "label": False})
    counted = []
    for number in range(1, len(rows) + 1):
        [source] = audit(mixture([{"path": write(f"{number}.jsonl", rows[:number])}], "kto")).sources
        counted.append((source.exact_copies, source.near_copies))
    assert counted == [(0, 0), (2, 0), (2, 2), (2, 3)]  # the last one is like the bad answer of the first pair


def test_a_key_that_was_replaced_counts_once_for_each_row_of_a_pair(write, mixture):
    rows = [{"p": "q", "chosen": "a", "rejected": "b", "prompt": "other"}] * 3
    [source] = audit(mixture([{"path": write("rows.jsonl", rows), "columns": {"p": "prompt"}}], "kto")).sources
    assert source.unread == source.doubtful == {"prompt": 6} and source.rows == 6


def test_a_held_out_prompt_of_a_pair_counts_once(write, mixture):
    """Two pairs and one judged answer are five rows and three prompts, of which two are in the training rows."""
    held_out = [PAIR, PAIR | {"prompt": "x"}, {"prompt": "y", "completion": "a", "label": 1}]
    found = mixture(
        [{"path": write("r.jsonl", held_out[:2])}], "kto", evaluation=[{"path": write("e.jsonl", held_out)}]
    )
    audited = audit(found)
    assert audited.groups == {"held-out prompts": 3}
    assert audited.sources[0].overlaps["held-out prompts"] == {"rows": 4, "kept": 4, "prompts": 2}
    assert [place.rpartition(":")[2] for row in audited.sources[0].overlapping for place in row["prompts"]] == list(
        "1122"
    )


def test_a_pair_that_is_dropped_has_one_place(write, mixture, tokenizer):
    """Both rows are dropped by their long prompt. Of four such pairs not all places are named, of three they are."""
    long = PAIR | {"prompt": "word " * 60}
    for pairs, places in ((1, "rows.jsonl:2)"), (3, "rows.jsonl:4)"), (4, "rows.jsonl:4 …)")):
        settings = {"max_length": 40, "long_prompts": "drop"}
        found = mixture([{"path": write("rows.jsonl", [PAIR, *[long] * pairs])}], "kto", **settings)
        [problem] = audit(found).sources[0].problems
        assert problem.rows == 2 * pairs and len(problem.places) == len({*problem.places}) == min(3, pairs)
        console = Console(file=io.StringIO(), width=1000)
        print_audit(audit(found), found, tokenizer, console)
        assert f"dropped as too long: {2 * pairs} rows" in console.file.getvalue()
        assert places in console.file.getvalue()


def test_a_lost_pair_counts_as_one_row_of_the_file(write, mixture):
    """One of five pairs is 0.2, whether it is malformed (one row without a label) or too long (two rows)."""
    for lost in (PAIR | {"rejected": ""}, PAIR | {"prompt": "word " * 60}):
        source, settings = {"path": write("rows.jsonl", [PAIR] * 4 + [lost])}, {"malformed": "drop", "max_length": 40}
        assert len(mixture([source], "kto", max_dropped=0.2, **settings).rows) == 8
        with pytest.raises(RecipeError, match=r"1 of 5 rows have nothing to learn \(1 "):
            mixture([source], "kto", max_dropped=0.19, **settings)


def test_the_audit_of_judged_answers(write, mixtures, tokenizer):
    """Four good answers and one bad one weigh 4 to 1, so weights of 1/4 to 1.5/4 balance them. One of four prompts has
    both. The evaluation's two rows of a pair and one good answer weigh 2 to 1, but nothing is learned from them.
    """
    rows = [{"prompt": f"p{number}", "completion": "a", "label": True} for number in range(4)]
    rows += [{"prompt": "p0", "completion": "b", "label": False}]
    source = {"path": write("rows.jsonl", rows)}
    held_out = [{"path": write("eval.jsonl", [PAIR, rows[0] | {"prompt": "x"}])}]
    found, evaluation = mixtures([source], "kto", evaluation=held_out)
    audited, evaluated = audit(found), audit(evaluation)
    assert audited.tallies["prompts with both"] == (1, 4) and audit(found) == audited  # from the cache too
    report = data_report(audited, found, tokenizer, evaluated)
    [advice] = [one for one in report["findings"] if "the KTO paper" in one]
    assert "weigh 4 times as much" in advice and "set training.desirable_weight to 0.25 … 0.375, or " in advice
    assert not [one for one in report["evaluation"]["findings"] if "paper" in one]
    console = Console(file=io.StringIO(), width=80)
    print_audit(audited, found, tokenizer, console, evaluated)
    shown = console.file.getvalue()
    assert max(map(len, shown.splitlines())) <= 80
    lines = [" ".join(line.replace("│", " ").split()) for line in shown.splitlines()]
    for line in ("good answers 4 (80%)", "bad answers 1 (20%)", "prompts with both 1 (25%)", "good answers 2 (67%)"):
        assert line in lines
    assert "read as prompt and two answers split in two (2), prompt_completion with a label (1)" in " ".join(lines)


@pytest.mark.parametrize(("training", "told"), [({}, True), ({"desirable_weight": 0.25}, False)])
def test_advice_is_about_the_weights_of_the_recipe(write, mixtures, tokenizer, training, told):
    rows = [{"prompt": f"p{number}", "completion": "a", "label": number > 0} for number in range(5)]
    [found, _] = mixtures([{"path": write("rows.jsonl", rows)}], "kto", training=training)
    assert bool([one for one in data_report(audit(found), found, tokenizer)["findings"] if "paper" in one]) is told
