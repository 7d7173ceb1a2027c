"""Whether more of a score is better: what a task says, and for older files what its metric is called."""

import json
from dataclasses import replace

import pytest
from support.evaluations import evaluation, sample

from olmoe_ft.evaluation.answered import Mark
from olmoe_ft.evaluation.answers import AnswersTask
from olmoe_ft.evaluation.direction import LESS, MORE, higher_is_better
from olmoe_ft.evaluation.files import add, read_evaluations
from olmoe_ft.evaluation.harness_results import scores_of
from olmoe_ft.evaluation.questions import Question
from olmoe_ft.evaluation.score import Score
from olmoe_ft.evaluation.task_files import load_tasks


def score(metric, higher=None):
    return Score("a", metric, 0.5, None, 7, 0, None, higher_is_better=higher)


@pytest.mark.parametrize(
    ("metric", "known"),
    [
        ("exact_match/strict-match", True),
        ("acc_norm", True),
        ("word_perplexity", False),
        ("timed_out", False),
        ("style_polite", None),
        ("likelihood", None),
        ("length", None),
    ],
)
def test_of_older_files_it_is_known_by_the_metrics_name(metric, known):
    assert higher_is_better(score(metric)) is known


def test_what_a_task_says_comes_first():
    assert higher_is_better(score("acc", False)) is False and higher_is_better(score("length", True)) is True
    assert higher_is_better(score("length"), score("length", False)) is False
    assert higher_is_better(score("acc", True), score("acc", False)) is None and higher_is_better() is None


def test_the_names_are_those_of_lm_eval():
    """Of every metric that both know, the direction is its own."""
    from lm_eval.api.registry import is_higher_better

    ours = {**dict.fromkeys(MORE, True), **dict.fromkeys(LESS, False)}
    theirs = {name: known for name in ours if (known := is_higher_better(name)) is not None}
    assert {"acc", "exact_match", "perplexity", "bits_per_byte", "mcc", "ter"} <= {*theirs}
    assert theirs == {name: ours[name] for name in theirs}


def test_of_lm_evals_results_only_yes_and_no_count():
    values = {"sample_len": 7, **{f"{name},none": 0.5 for name in "abcd"}, "a_stderr,none": 0.1}
    found = scores_of("t", values, {}, 0, None, {"a": True, "b": False, "c": "true"})
    assert {one.metric: one.higher_is_better for one in found} == {"a": True, "b": False, "c": None, "d": None}


def test_of_answers_only_right_and_wrong_is_better():
    question = Question([], "7", {"bare": ("", "."), "polite": ("It is ", ".")}, "sums")
    found = AnswersTask("answers", [question], 8)._scores([question], [Mark(True, "bare")], None)
    assert {one.metric: one.higher_is_better for one in found} == {
        "exact_match": True,
        "exact_match/sums": True,
        "style_bare": None,
        "style_polite": None,
    }


def test_shipped_tasks_say_it(tmp_path):
    (tmp_path / "rows.jsonl").write_text('{"prompt": "a?", "answer": "a"}\n')
    tasks = load_tasks([f"regex_rows={tmp_path}/rows.jsonl", "skills"])["tasks"]
    assert tasks["regex_rows"].higher_is_better() == {"regex_match": True, "timed_out": False}
    assert tasks["skills"].higher_is_better() == {"exact_match": True, "style_bare": None, "style_polite": None}


def test_it_is_written_and_older_files_without_it_are_read(tmp_path):
    one = evaluation("before", 0, [sample(0)])
    add(tmp_path, replace(one, scores=[replace(one.scores[0], higher_is_better=False)]))
    assert [score.higher_is_better for score in read_evaluations(tmp_path)[0].scores] == [False]
    file = tmp_path / "evaluation.json"
    content = json.loads(file.read_text())
    assert content["evaluations"][0]["scores"][0].pop("higher_is_better") is False
    file.write_text(json.dumps(content))
    assert [score.higher_is_better for score in read_evaluations(tmp_path)[0].scores] == [None]
