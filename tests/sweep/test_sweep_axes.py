"""What the command line varies: lists, ranges, seeded points of them."""

import math

import pytest

from olmoe_ft.recipe import UserError
from olmoe_ft.sweep.axes import Choices, Range, drawn, parse_space, some_of_grid

LR, BATCH, TRAIN = "training.learning_rate", "training.per_device_train_batch_size", "router.train"


def axis(setting: str, search: bool = False):
    (found,) = parse_space([setting], search).axes
    return found


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("1e-5,2e-5", ("1e-5", "2e-5")),
        ("[sigmoid, sft],sigmoid", ("[sigmoid, sft]", "sigmoid")),  # a comma in brackets is the list's
        ("'a,b',c", ("'a,b'", "c")),
        ("{a: [1, 2]},null", ("{a: [1, 2]}", "null")),
        ("don't,x", ("don't", "x")),
        ("../a.jsonl,b..c", ("../a.jsonl", "b..c")),  # not numbers, so no ranges
        # 1e-6 x 10^0, 10^0.5, 10^1, 10^1.5, 10^2; between the ends 4 digits
        ("1e-6..1e-4:log:5", ("1e-6", "3.162e-06", "1e-05", "3.162e-05", "1e-4")),
        ("0..0.1:linear:3", ("0", "0.05", "0.1")),
        ("0..1:5", ("0", "1")),  # whole ends: 0, 0.25 -> 0, 0.5 -> 0, 0.75 -> 1, 1; each once
        ("1..9:5", ("1", "3", "5", "7", "9")),
        ("8..64:log:4", ("8", "16", "32", "64")),
    ],
)
def test_the_values_of_an_axis(text, values):
    assert axis(f"{LR}={text}") == Choices(LR, values)


def test_one_value_is_for_all_points_and_the_last_axis_is_the_fastest():
    space = parse_space([f"{LR}=1,2", f"{BATCH}=4", f"{TRAIN}=full,frozen"], search=False)
    assert space.fixed == (f"{BATCH}=4",)
    assert list(space.grid()) == [("1", "full"), ("1", "frozen"), ("2", "full"), ("2", "frozen")]


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        (f"{LR}=1e-3..1e-5:log:3", "whose first end is not below its second"),
        (f"{LR}=0..1:log:3", "has ends above 0"),
        (f"{LR}=1e-5..1e-3:lgo:5", 'found "1e-5..1e-3:lgo:5"; allowed: LOW..HIGH'),
        (f"{LR}=1e-5..x", 'found "1e-5..x"; allowed: LOW..HIGH'),
        (f"{LR}=1e-5..1e-3:log", "without the number of values; write 1e-5..1e-3:log:5"),
        (f"{LR}=1e-5..1e-3:log:1", "with 1 value(s); allowed: at least 2"),
        (f"{LR}=1,,2", "with an empty value"),
        (f"{LR}=[1,2", "in which ']' is missing"),
        ("trianing.learning_rate=1,2", "unknown section (did you mean `training`?)"),
        ("trianing.learning_rate=1..2:3", "unknown section (did you mean `training`?)"),
        ("learning_rate", 'found "learning_rate"; write section.key=value'),
        ("name=a,b", "name the sweep with --name"),
        (f"{LR}=1", "found no key with several values"),
    ],
)
def test_what_is_wrong_is_said(setting, message):
    with pytest.raises(UserError) as error:
        parse_space([setting], search=False)
    assert message in str(error.value)


def test_all_mistakes_at_once():
    with pytest.raises(UserError) as error:
        parse_space([f"{LR}=1,,2", f"{BATCH}=9..1:3", f"{TRAIN}=full,frozen", f"{TRAIN}=lora"], search=False)
    assert len(error.value.messages) == 3 and f"{TRAIN}: found twice" in str(error.value)


def test_some_points_of_a_grid_are_seeded_and_a_larger_number_has_them_too():
    space = parse_space([f"{LR}=1..20:20", f"{BATCH}=1,2,4"], search=False)
    assert len(some_of_grid(space, None, 0)) == 60
    ten, twelve = some_of_grid(space, 10, 0), some_of_grid(space, 12, 0)
    assert len(ten) == 10 and set(ten) < set(twelve)
    assert ten == some_of_grid(space, 10, 0) != some_of_grid(space, 10, 1)
    assert ten == [point for point in space.grid() if point in ten]  # in the grid's order


def test_a_random_search_draws_between_the_ends_on_the_scale_of_the_range():
    """Log-uniform between 1e-6 and 1e-2: half of the draws are below the middle, 1e-4; of uniform ones 1%."""
    space = parse_space([f"{LR}=1e-6..1e-2:log", f"{BATCH}=1..8", f"{TRAIN}=full,frozen"], search=True)
    assert space.axes[0] == Range(LR, "1e-6", "1e-2", log=True)
    points = drawn(space, 200, seed=0)
    assert points == drawn(space, 200, seed=0) != drawn(space, 200, seed=1)
    assert points[:20] == drawn(space, 20, seed=0) and len(set(points)) == 200
    rates = [float(rate) for rate, _, _ in points]
    assert all(1e-6 <= rate <= 1e-2 for rate in rates) and 60 < sum(rate < 1e-4 for rate in rates) < 140
    assert {int(size) for _, size, _ in points} == set(range(1, 9))
    assert {train for _, _, train in points} == {"full", "frozen"}
    assert math.isclose(float(space.axes[0].at(0.5)), 1e-4)


def test_a_random_search_ends_where_there_are_no_more_points():
    space = parse_space([f"{LR}=1,2", f"{TRAIN}=full,frozen"], search=True)
    assert sorted(drawn(space, 10, seed=0)) == sorted(space.grid())
