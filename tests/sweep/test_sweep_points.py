"""Names of points, and the recipes behind them."""

import pytest

from olmoe_ft.recipe import UserError, load_recipe
from olmoe_ft.recipe.rules import is_run_name
from olmoe_ft.sweep.axes import parse_space
from olmoe_ft.sweep.points import LONGEST, Points, short_keys, short_value


def points(recipe: str, *settings: str):
    space = parse_space(settings, search=False)
    return Points(recipe, space.fixed, space.axes, "s").make_all(space.grid())


@pytest.mark.parametrize(
    ("keys", "short"),
    [
        (["training.learning_rate", "router.load_balancing_coef"], ["lr", "lbc"]),
        (["lora.r", "router.train"], ["r", "train"]),
        # the last parts are the same, so one more of each
        (["stages.0.training.learning_rate", "stages.1.training.learning_rate"], ["0.training.lr", "1.training.lr"]),
        (["training.max_steps", "training.max_size"], ["max_steps", "max_size"]),  # ms and ms
    ],
)
def test_keys_are_named_by_their_initials_while_these_differ(keys, short):
    assert short_keys(keys) == short


@pytest.mark.parametrize(
    ("text", "short"),
    [
        ("1e-5", "1e-05"),
        ("0.00001", "1e-05"),
        ("0.0", "0"),
        ("8", "8"),
        ("1234567", "1234567"),  # :g would give 1.23457e+06
        ("true", "true"),
        ("null", "null"),
        ("[sigmoid, sft]", "sigmoid+sft"),
        ("data/skills/train.jsonl", "train.jsonl"),
        ("'a b:c'", "a-b-c"),
    ],
)
def test_values_in_names(text, short):
    assert short_value(text) == short


def test_each_point_is_a_run_below_the_sweep():
    found, same = points("tiny/sft", "training.learning_rate=1e-5,2e-5", "router.load_balancing_coef=0.01,0.0")
    assert [one.name for one in found] == [
        "lr=1e-05,lbc=0.01", "lr=1e-05,lbc=0", "lr=2e-05,lbc=0.01", "lr=2e-05,lbc=0",
    ]  # fmt: skip
    assert not same and str(found[1].last_run) == "runs/s/lr=1e-05,lbc=0"
    assert found[3].recipe.training["learning_rate"] == 2e-5 and found[3].recipe.router.load_balancing_coef == 0


def test_of_a_pipeline_each_stage_has_its_run_below_the_point():
    found, _ = points("tiny/pipeline", "stages.1.router.load_balancing_coef=0.0,0.01")
    assert [str(run.run_dir) for run in found[0].recipe.runs] == ["runs/s/lbc=0/sft", "runs/s/lbc=0/dpo"]
    assert found[0].recipe.runs[1].model.path == "runs/s/lbc=0/sft"
    assert [one.recipe.runs[1].router.load_balancing_coef for one in found] == [0.0, 0.01]


def test_a_stage_of_a_point_can_be_repeated_from_its_own_recipe(tmp_path):
    found, _ = points("tiny/pipeline", "stages.1.router.load_balancing_coef=0.0,0.01")
    file = tmp_path / "recipe.yaml"
    file.write_text(found[0].recipe.runs[1].to_yaml())
    assert load_recipe(file) == found[0].recipe.runs[1]


def test_equal_recipes_are_one_point():
    found, same = points("tiny/sft", "training.learning_rate=1e-5,0.00001,2e-5")
    assert [one.name for one in found] == ["lr=1e-05", "lr=2e-05"]
    assert len(same) == 1 and "same recipe as lr=1e-05" in same[0]


def test_long_and_equal_names_have_a_digest():
    """Five file names of 30 characters are more than 80; and `a/x` and `b/x` are both `x`."""
    paths = ",".join(f"data/skills/{letter * 30}.jsonl" for letter in "ab")
    space = parse_space([f"data.train.{number}.path={paths}" for number in range(4)], search=False)
    maker = Points("tiny/sft", (), space.axes, "s")
    names = [maker._name(values) for values in space.grid()]
    assert len(set(names)) == 16 and all(len(name) <= LONGEST and is_run_name(f"s/{name}") for name in names)
    space = parse_space(["model.tokenizer=a/x,b/X"], search=False)
    maker = Points("tiny/sft", (), space.axes, "s")
    first, second = (maker._name(values) for values in space.grid())
    assert first == "tokenizer=x" and second.startswith("tokenizer=X-") and maker._name(("b/X",)) == second


def test_what_is_wrong_with_any_point_is_said_once():
    with pytest.raises(UserError) as error:
        points("tiny/sft", "training.learnig_rate=1,2", "router.train=full,forzen", "training.max_steps=1,2.5")
    assert sum("learnig_rate" in message for message in error.value.messages) == 1
    assert all(text in str(error.value) for text in ('found "forzen"', "found 2.5"))


@pytest.mark.parametrize(
    ("name", "right"),
    [
        ("s/lr=1e-05,lbc=0.01", True),
        ("s/x=a+b", True),
        ("s/plain", False),
        ("s/=1", False),
        ("s/..=1", False),
        ("s/x=1/y=2", False),
        ("../x=1", False),
        ("x=1", False),
    ],
)
def test_names_of_points_are_names_of_runs(name, right):
    if right:
        assert load_recipe("tiny/sft", [f"name={name}"]).name == name
    else:
        with pytest.raises(UserError, match="it names a folder in runs/"):
            load_recipe("tiny/sft", [f"name={name}"])
