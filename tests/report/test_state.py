"""How a run has ended, by its files alone."""

import math
import os

import pytest
from support.run_folders import make_run

from olmoe_ft.report.files.state import State, state_of
from olmoe_ft.report.files.time_spent import steps_known
from olmoe_ft.training.lock import Holder, held, only_launch

RECORDS = [{"step": 10, "loss": 2.0}, {"step": 20, "loss": 1.0}]


@pytest.mark.parametrize(
    ("how", "reason"), [("finished", None), ("stopped", "stopped by SIGTERM"), ("failed", "out of memory")]
)
def test_a_launch_says_how_it_ended(tmp_path, how, reason):
    ended = {"how": how, "reason": reason, "step": 25, "seconds": 9.0, "energy_joules": None}
    run = make_run(tmp_path / "x", records=RECORDS, launches=[{"ended": ended}], summary={"steps": 25})
    assert state_of(run) == State(how, reason or "", 25)


def test_a_step_that_was_not_taken_is_no_step(tmp_path):
    """The loss of step 2 was not finite: its record is there, and the weights are those of step 1."""
    first = {"step": 1, "loss": 6.4, "num_tokens": 950, "perf/tokens_per_second": 475.0}
    ended = {"how": "failed", "reason": "the loss is nan", "step": 1, "seconds": 9.0, "energy_joules": None}
    run = make_run(tmp_path / "x", records=[first, {"step": 2, "loss": math.nan}], launches=[{"ended": ended}])
    assert state_of(run) == State("failed", "the loss is nan", 1)
    assert steps_known(run) == ""


def test_a_launch_that_ended_is_not_training_although_it_still_holds_the_lock(tmp_path):
    """It writes its page before it releases the lock."""
    with only_launch(tmp_path / "x"):
        run = make_run(tmp_path / "x", launches=[{"ended": {"how": "failed", "reason": "no", "step": 3}}])
        assert state_of(run) == State("failed", "no", 3)


def test_the_newest_launch_counts(tmp_path):
    """The first stopped at step 10; the second has recorded no end, and nobody holds the lock."""
    launches = [{"ended": {"how": "stopped", "reason": None, "step": 10}}, {"resumed_from": "checkpoint-10"}]
    run = make_run(tmp_path / "x", records=RECORDS, launches=launches)
    assert state_of(run) == State("killed", "", 20, "last record")


@pytest.mark.parametrize(("saved", "step", "seen"), [(15, 20, "last record"), (24, 24, "newest checkpoint")])
def test_a_killed_launch_was_at_least_at_its_newest_checkpoint(tmp_path, saved, step, seen):
    (tmp_path / f"x/checkpoints/checkpoint-{saved}").mkdir(parents=True)
    assert state_of(make_run(tmp_path / "x", records=RECORDS, launches=[{}])) == State("killed", "", step, seen)


def test_a_run_of_an_older_version_has_finished_if_it_has_a_summary(tmp_path):
    run = make_run(tmp_path / "x", records=RECORDS, launches=[{"python": "3.11"}], summary={"steps": 20})
    assert state_of(run) == State("finished", "", 20)


def test_a_run_that_holds_its_lock_is_training(tmp_path):
    assert held(tmp_path / "x") is False
    with only_launch(tmp_path / "x"):
        assert held(tmp_path / "x") is True
        assert state_of(make_run(tmp_path / "x", records=RECORDS, launches=[{}])) == State("training", "", 20)
    assert held(tmp_path / "x") is False


def test_a_holder_that_is_gone_is_not_training(tmp_path):
    """This process's number with another start: a number that was used again."""
    holder = Holder.here()
    assert holder.pid == os.getpid() and holder.started is not None
    run = make_run(tmp_path / "x", records=RECORDS, launches=[{}])
    (tmp_path / "x/lock").write_text(holder.model_copy(update={"started": holder.started + 1}).model_dump_json())
    assert held(tmp_path / "x") is False and state_of(run).how == "killed"


def test_a_holder_on_another_computer_cannot_be_seen(tmp_path):
    run = make_run(tmp_path / "x", records=RECORDS, launches=[{}])
    for text in (Holder.here().model_copy(update={"machine": "another"}).model_dump_json(), "half a li"):
        (tmp_path / "x/lock").write_text(text)
        assert held(tmp_path / "x") is None and state_of(run).how == "not known"
