"""The figures on top of a run's page."""

import math

import pytest
from support.evaluations import evaluation, sample
from support.run_folders import make_run
from support.small_runs import small_run

from olmoe_ft.report.page.blocks import Cell
from olmoe_ft.report.sections.cost import cost
from olmoe_ft.report.tiles import tiles

ODD = ("NaN", "Infinity", "-Infinity")


@pytest.mark.parametrize("odd", ODD)
def test_a_tile_whose_newest_number_is_not_finite_says_so(tmp_path, odd):
    """What is known besides stays there: the lowest evaluation loss that is a number."""
    names = ("loss", "eval_loss", "router/max_violation", "router/dead_experts", "router/drift_agreement")
    records = [{"step": 1, **dict.fromkeys(names, 0.5)}, {"step": 2, **dict.fromkeys(names, odd)}]
    found = dict(tiles(small_run(tmp_path, records)))
    assert found["loss"] == Cell("not finite", "at first 0.5", "bad")
    assert found["evaluation loss"] == Cell("not finite", "best 0.5", "bad")
    assert found["busiest expert"] == Cell("not finite", "of the mean load; not finite dead", "bad")
    assert found["choices as at the start"] == Cell("not finite", "of the routers' top-k", "bad")


@pytest.mark.parametrize("odd", ODD)
def test_a_number_that_was_not_finite_at_first(tmp_path, odd):
    records = [{"step": 1, "loss": odd, "eval_loss": odd}, {"step": 2, "loss": 1.5, "eval_loss": 1.25}]
    found = dict(tiles(small_run(tmp_path, records)))
    assert found["loss"] == Cell("1.5", "at first not finite")
    assert found["evaluation loss"] == Cell("1.25", "best 1.25")


def test_a_score_that_is_not_finite(tmp_path):
    one = evaluation("after", 9, [sample(number) for number in range(4)])
    one.scores[0] = type(one.scores[0])("sums", "exact_match", math.nan, math.nan, 4, 0, None)
    found = dict(tiles(make_run(tmp_path / "x", evaluations=[one])))
    assert found["sums, exact match"] == Cell("not finite", "4 questions", "bad")


def test_a_dead_expert_is_to_be_checked(tmp_path):
    """As in the list of findings, where it is a warning."""
    found = dict(tiles(small_run(tmp_path, [{"step": 1, "router/max_violation": 1.0, "router/dead_experts": 1}])))
    assert found["busiest expert"] == Cell("2.00x", "of the mean load; 1 dead", "warn")


def test_the_speed_is_of_steps_whose_time_is_known(tmp_path):
    """5,000 tokens in 50 s; the last 4,000 tokens, of steps 51 to 90, are in a record without a speed."""
    records = [
        {"step": 50, "num_tokens": 5000, "perf/tokens_per_second": 100.0},
        {"step": 90, "num_tokens": 9000},
    ]
    run = small_run(tmp_path, records, [{"processes": 1, "device": "cpu", "ended": {"seconds": 100.0}}])
    found = dict(tiles(run))
    assert found["tokens trained"] == Cell("9,000", "100 a second")
    assert found["time in steps"] == Cell("50.0 s", "of 50 of 90 steps, 0.0278 process-hours")
    facts = dict(cost(run).blocks[0].pairs)
    assert facts["time in training steps"].note.startswith("of 50 of 90 steps; 50% of 1 min 40 s")


def test_the_time_of_all_steps_needs_no_remark(tmp_path):
    run = small_run(tmp_path, [{"step": 50, "num_tokens": 5000, "perf/tokens_per_second": 100.0}])
    assert dict(tiles(run))["time in steps"] == Cell("50.0 s", "")
