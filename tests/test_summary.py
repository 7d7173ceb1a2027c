"""`summary.json` as it was and as it is: written in one order, read with what it lacks and what it has more."""

import math

from olmoe_ft.evaluation.answered import Answered
from olmoe_ft.summary import Summary

SCORE = {"exact_match": 0.5, "styles": {"bare": 1.0}, "skills": {"sum": 0.5}, "count": 2}
WRITTEN = {
    "name": "tiny-sft",
    "stage": "sft",
    "steps": 3,
    "started_from": "abc",
    "train_loss": 1.25,
    "train_seconds": 2.5,
    "last": {"loss/task": 1.0, "router/entropy": 2.0},
    "eval_loss": 1.5,
    "eval_perplexity": 4.5,
    "before": SCORE,
    "after": SCORE | {"exact_match": 1.0},
}


def test_it_is_written_as_it_was_read():
    summary = Summary.read(WRITTEN)
    assert list(summary.as_dict().items()) == list(WRITTEN.items())
    assert summary.others == {"eval_loss": 1.5, "eval_perplexity": 4.5}
    assert summary.after == Answered(1.0, {"bare": 1.0}, {"sum": 0.5}, 2)


def test_one_of_an_older_or_a_newer_version_is_read():
    old = Summary.read({"name": "a", "steps": 1, "train_loss": 1.0, "train_seconds": 1.0})
    assert (old.stage, old.started_from, old.last, old.before, old.after) == (None, None, {}, None, None)
    newer = Summary.read(WRITTEN | {"something": [1]})
    assert newer.as_dict()["something"] == [1]


def test_a_loss_that_is_not_a_number_is_read():
    """JSON has no NaN: it is written as a text."""
    assert math.isnan(Summary.read(WRITTEN | {"train_loss": "NaN"}).train_loss)


def test_without_held_out_prompts_there_are_no_scores():
    values = {name: value for name, value in WRITTEN.items() if name not in ("before", "after")}
    assert Summary.read(values).as_dict() == values
