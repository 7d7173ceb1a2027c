"""The section on what a run was trained on."""

import pytest
from support.run_folders import blocks_of, make_run, recipe_of, table_of, titles_of

from olmoe_ft.report.page.blocks import Fold, Histogram, TrainingRow
from olmoe_ft.report.page.clean import cleaned
from olmoe_ft.report.private.private import Private
from olmoe_ft.report.sections.data import PART, data, max_length

SOURCE = {
    "path": "a.jsonl", "rows": 100, "drawn": 60, "unread": {"id": 100}, "doubtful": {}, "dropped": {}, "problems": [],
    "tokens": 2000, "tokens_p50": 18.5, "tokens_p95": 40.0, "tokens_max": 55,
    "lengths": {"edges": [0, 20, 40, 60], "counts": [70, 20, 10]},
    "supervised_tokens": 500, "truncated_rows": 0, "truncated_answer_tokens": 0, "overlaps": {},
}  # fmt: skip
OTHER = SOURCE | {
    "path": "b.jsonl", "drawn": 180, "unread": {}, "tokens_max": 900, "truncated_rows": 5,
    "lengths": {"edges": [0, 20, 40, 60], "counts": [1, 1, 98]},
    "dropped": {"malformed": 3, "too long": 1},
    "problems": [{"reason": "malformed", "problem": "no answer", "rows": 3, "places": ["b.jsonl:7", "b.jsonl:9"]}],
    "overlaps": {"held-out prompts": {"rows": 4, "kept": 2, "prompts": 3}},
}  # fmt: skip
REPORT = {
    "rows": 240, "sources": [SOURCE, OTHER], "groups": {"held-out prompts": 50}, "positions": 512, "findings": [],
    "examples": [
        [["seen", "q"], ["learned", "a" * (PART + 10)]],
        [["seen", "q"], ["chosen", "yes"], ["rejected", "no"]],
    ],
}  # fmt: skip


@pytest.fixture
def section(tmp_path):
    return data(make_run(tmp_path / "x", data_report=REPORT))


def test_the_table_of_sources(section):
    """60 and 180 of 240 rows are a quarter and three quarters; 500 of 2,000 tokens are a quarter."""
    first, second = table_of(section, "Sources")
    assert first == [
        "a.jsonl", "100", "60 (25.0%)", "2,000", "25.0% (500)", "18", "40", "55", "0", "0",
    ]  # fmt: skip
    assert second[2] == "180 (75.0%)" and second[-2:] == ["5 (5.0%)", "4 (4.0%)"]
    cells = blocks_of(section)[0].rows[1]
    assert cells[2].bar == 0.75 and cells[-1].tone == "warn" and blocks_of(section)[0].rows[0][-1].tone == ""


def test_what_the_stage_counts(tmp_path):
    """Of 100 rows 75 are good; an epoch draws a source twice. A report without tallies has no such table."""
    tallies = {"good answers": [75, 100], "bad answers": [25, 100]}
    doubled = {name: [2 * number for number in tally] for name, tally in tallies.items()}
    report = REPORT | {"sources": [SOURCE | {"tallies": tallies}, OTHER], "tallies": doubled}
    assert table_of(data(make_run(tmp_path / "x", data_report=report)), "Counted for this stage") == [
        ["a.jsonl", "75 (75.0%)", "25 (25.0%)"],
        ["b.jsonl", "", ""],
        ["all, in an epoch", "150 (75.0%)", "50 (25.0%)"],
    ]
    assert "Counted for this stage" not in titles_of(data(make_run(tmp_path / "y", data_report=REPORT)))


def test_lengths_with_limits(section):
    """The axis ends at 60, so that neither 128 nor 512 is on it; the longest row has 900 tokens."""
    [histogram] = [block for block in blocks_of(section) if isinstance(block, Histogram)]
    assert histogram.edges == [0, 20, 40, 60]
    assert histogram.counts == {"a.jsonl": [70, 20, 10], "b.jsonl": [1, 1, 98]}
    assert histogram.marks == {} and histogram.unit == "tokens"
    assert histogram.note == (
        "training.max_length: 128; positions of the network: 512; the last bar is of all rows from 40 tokens on, up to "
        "900"
    )


def test_limits_within_the_axis_are_marks(tmp_path):
    run = make_run(tmp_path / "x", recipe_of("tiny/sft", "training.max_length=60"), data_report=REPORT)
    [histogram] = [block for block in blocks_of(data(run)) if isinstance(block, Histogram)]
    assert histogram.marks == {"training.max_length": 60.0}


@pytest.mark.parametrize(("training", "longest"), [({}, 1024), ({"max_length": 7}, 7), ({"max_length": None}, None)])
def test_max_length_is_trls_default_where_the_recipe_has_none(tmp_path, training, longest):
    assert max_length(make_run(tmp_path / "x", recipe_of() | {"training": training})) == longest


def test_rows_that_were_dropped(section):
    """A reason without a problem of its own is there too."""
    assert table_of(section, "Rows that are not trained on") == [
        ["b.jsonl", "malformed", "3", "no answer", "b.jsonl:7, b.jsonl:9"],
        ["b.jsonl", "too long", "1", "", ""],
    ]


def test_unread_keys_and_questions(section):
    assert table_of(section, "Keys of rows that were not read") == [["a.jsonl", "id (100)", ""]]
    assert table_of(section, "Held-out and benchmark questions in the rows") == [
        ["held-out prompts", "b.jsonl", "4", "2", "3 (of 50)"]
    ]


def test_rows_as_the_model_sees_them(section):
    """A part of 4,010 characters keeps 2,000 on either side."""
    rows = (block for block in blocks_of(section) if isinstance(block, TrainingRow))
    first, second = (cleaned(block, Private()) for block in rows)
    half = "a" * (PART // 2)
    assert first.spans == [["seen", "q"], ["learned", f"{half}\n[… 10 characters are left out …]\n{half}"]]
    assert second.spans == [["seen", "q"], ["chosen", "yes"], ["rejected", "no"]]


def test_evaluation_rows_are_folded(tmp_path):
    evaluation = {"sources": [SOURCE | {"path": "eval.jsonl"}], "groups": {}, "positions": 512, "findings": []}
    section = data(make_run(tmp_path / "x", data_report=REPORT | {"evaluation": evaluation}))
    [fold] = [block for block in section.blocks if isinstance(block, Fold)]
    assert fold.title == "Evaluation rows" and fold.blocks[0].rows[0][0] == "eval.jsonl"


def test_a_path_that_is_there_twice_has_two_histograms(tmp_path):
    run = make_run(tmp_path / "x", data_report=REPORT | {"sources": [SOURCE, SOURCE, SOURCE]})
    [histogram] = [block for block in blocks_of(data(run)) if isinstance(block, Histogram)]
    assert list(histogram.counts) == ["a.jsonl", "a.jsonl (2)", "a.jsonl (3)"]


def test_a_report_of_an_older_version_has_no_lengths(tmp_path):
    older = {"rows": 3, "sources": [{"path": "a.jsonl", "rows": 3}]}
    section = data(make_run(tmp_path / "x", data_report=older))
    assert titles_of(section) == ["Sources"]
    assert not [block for block in blocks_of(section) if isinstance(block, Histogram)]


def test_a_damaged_report_is_named_once(tmp_path):
    run = make_run(tmp_path / "x", data_report=REPORT | {"sources": [SOURCE | {"rows": "many"}]})
    assert data(run) is None and data(run) is None
    assert run.unreadable == [f"{run.path}/data_report.json cannot be read: sources.0.rows is not what it should be"]


def test_a_run_without_a_report(tmp_path):
    run = make_run(tmp_path / "x")
    assert data(run) is None and run.unreadable == []
