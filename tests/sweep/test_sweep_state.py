"""`sweep.json`: what another command with the same name finds in it."""

import pytest

from olmoe_ft.recipe import UserError
from olmoe_ft.sweep.state import NAME, open_state, read_state

LR = "training.learning_rate"
FIXED = ["training.max_steps=10", "tracking.wandb='off'"]


@pytest.fixture
def state(tmp_path):
    found = open_state(tmp_path, "tiny/sft", FIXED, [f"{LR}=5e-3,1"], "grid", 0)
    found.entry("lr=0.005", [f"{LR}=5e-3"]).state = "finished"
    found.entry("lr=1", [f"{LR}=1"]).reason = 'a "reason"'
    found.write()
    return found


def test_it_is_read_as_it_was_written(state):
    assert read_state(state.folder) == state


def test_other_axes_add_points(state):
    """Numbers are the same however they are written, and the fixed values in whatever order."""
    found = open_state(state.folder, "tiny/sft", FIXED[::-1], [f"{LR}=0.005,2"], "grid", 0)
    assert found.axes == [f"{LR}=5e-3,1", f"{LR}=0.005,2"]
    assert found.entry("lr=0.005", [f"{LR}=0.005"]).state == "finished"
    assert found.entry("lr=2", [f"{LR}=2"]).state == "planned"
    assert [one.name for one in found.points] == ["lr=0.005", "lr=1", "lr=2"]


@pytest.mark.parametrize(("recipe", "fixed"), [("tiny/dpo", FIXED), ("tiny/sft", FIXED[:1])])
def test_another_recipe_or_other_values_for_all_points_are_refused(state, recipe, fixed):
    with pytest.raises(UserError, match="found a sweep of tiny/sft .* give this one another --name"):
        open_state(state.folder, recipe, fixed, [], "grid", 0)


def test_another_point_of_the_same_name_is_refused(state):
    with pytest.raises(UserError, match="is that of training.learning_rate=1, and not of lora.learning_rate=1"):
        state.entry("lr=1", ["lora.learning_rate=1"])


@pytest.mark.parametrize(
    "text", ["", "[]", '{"points": [{}]}', '{"points": [{"name": "a", "overrides": [], "state": "x"}]}']
)
def test_a_damaged_file_is_named(tmp_path, text):
    (tmp_path / NAME).write_text(text)
    with pytest.raises(UserError, match="the file is damaged; move it away"):
        read_state(tmp_path)
    assert read_state(tmp_path / "nothing") is None
