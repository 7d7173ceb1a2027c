"""What may change when a run goes on, and what makes another run of it."""

import pytest

from olmoe_ft.recipe import RecipeError
from olmoe_ft.recipe.changes import Restart, differences, of_another_run, to_accept


def test_differences_are_named_by_their_keys():
    before = {"a": {"b": 1, "c": [1]}, "d": None}
    assert differences(before, {"a": {"b": 1, "c": [1, 2]}, "d": None, "e": 0}) == ["a.c", "e"]
    assert differences(before, before) == []


def test_how_a_run_is_watched_kept_and_ended_is_free():
    free = ["training.max_steps", "training.logging_steps", "training.save_total_limit", "tracking.wandb", "data.eval"]
    ours = ["training.learning_rate", "data.train", "training.seed", "router.train", "training.max_length"]
    assert of_another_run([*free, *ours], frozenset()) == ours


def test_what_is_accepted_may_have_another_name():
    keys = ["data.train", "model.path", "model.tokenizer", "model.dtype"]
    assert of_another_run(keys, frozenset({"data", "model"})) == ["model.tokenizer", "model.dtype"]


def test_rows_a_step_may_be_made_of_other_parts_with_other_processes():
    parts = ["training.per_device_train_batch_size", "training.gradient_accumulation_steps"]
    assert of_another_run(parts, frozenset()) == parts
    assert of_another_run([*parts, "training.seed"], frozenset({"processes"})) == ["training.seed"]


def test_what_is_accepted_has_a_name():
    assert Restart.of(False, ["data,libraries", "model"]).accept == {"data", "libraries", "model"}
    with pytest.raises(RecipeError, match=r"--accept: found weather; allowed: data \(the training rows\), model"):
        Restart.of(False, ["data", "weather"])


def test_what_evaluations_decide_is_not_free():
    keys = ["data.eval", "training.eval_steps", "training.save_steps"]
    assert of_another_run(keys, frozenset()) == []
    assert of_another_run(keys, frozenset(), follows_evaluation=True) == keys[:2]


def test_what_may_be_accepted_is_said():
    assert to_accept(["data.train", "training.gradient_accumulation_steps"]) == ["data", "processes"]
    assert to_accept(["data.train", "training.seed"]) == [] == to_accept([])
