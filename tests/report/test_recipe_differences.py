"""What differs between the recipes of runs, and beside them."""

from support.side_by_side import RECIPE, run_of

from olmoe_ft.report.compared import labelled
from olmoe_ft.report.recipe_differences import (
    WIDE,
    in_one_line,
    keys_by_run,
    other_differences,
    recipe_differences,
)


def recipe(**training):
    return {**RECIPE, "training": {**RECIPE["training"], **training}}


def cells(differing):
    return {one.key: [(cell.text, cell.note) for cell in one.cells] for one in differing}


def test_only_keys_that_differ_each_with_its_default(tmp_path):
    """TRL's default of the seed is 42, so `c` has no other seed than `b`; logging changes no step and comes last."""
    runs = [
        run_of(tmp_path / "a", recipe=recipe(logging_steps=5, seed=1)),
        run_of(tmp_path / "b", recipe=recipe(logging_steps=7, seed=42, learning_rate=3e-5)),
        run_of(tmp_path / "c", recipe=recipe(logging_steps=5)),
    ]
    differing = recipe_differences(labelled(runs))
    assert cells(differing) == {
        "training.seed": [("1", ""), ("42", ""), ("42", "the default")],
        "training.learning_rate": [("0.0001", ""), ("3e-05", ""), ("0.0001", "")],
        "training.logging_steps": [("5", ""), ("7", ""), ("5", "")],
    }
    assert differing[-1].key == "training.logging_steps"
    assert recipe_differences(labelled([runs[0], run_of(tmp_path / "d", recipe=recipe(logging_steps=5, seed=1))])) == []


def test_sources_are_compared_one_by_one_and_a_missing_section_is_not_set(tmp_path):
    other = {
        **RECIPE,
        "stage": "dpo",
        "data": {"train": [{"path": "rows.jsonl", "weight": 0.5}, {"path": "more.jsonl", "weight": 1.0}]},
        "lora": {"r": 8},
        "training": {**RECIPE["training"], "loss_type": ["sigmoid", "sft"], "beta": 0.2},
    }
    runs = labelled([run_of(tmp_path / "a"), run_of(tmp_path / "b", recipe=other)])
    differing = recipe_differences(runs)
    found = cells(differing)
    assert found["stage"] == [("sft", ""), ("dpo", "")]
    assert found["data.train.0.weight"] == [("1.0", ""), ("0.5", "")]
    assert found["data.train.1.path"] == [("not set", ""), ("more.jsonl", "")]
    # each stage's trainer has its own default
    assert found["training.loss_type"] == [("nll", "the default"), ('["sigmoid", "sft"]', "")]
    assert found["training.beta"] == [("not set", ""), ("0.2", "")]
    assert found["lora.r"] == [("not set", ""), ("8", "")]
    # `weight` alone would be either source's
    assert in_one_line(differing, 1) == "stage=dpo, train.0.weight=0.5, train.1.path=more.jsonl and 4 more"


def test_what_differs_beside_the_recipes(tmp_path):
    """What one run has not recorded is no difference; a revision's files may have been changed."""
    first = {"libraries": {"torch": "2.11.0", "trl": "1.16.0"}, "git_revision": "a" * 40, "processes": 2}
    second = {"libraries": {"torch": "2.12.0", "trl": "1.16.0"}, "git_revision": "a" * 40 + "-dirty", "processes": 2}
    data = {"rows": 9, "fingerprint": "f" * 32, "sources": [{"path": "x.jsonl", "fingerprint": "1" * 32}]}
    runs = [
        run_of(tmp_path / "a", launch=first),
        run_of(tmp_path / "b", launch={**second, "data": data}),
        run_of(tmp_path / "c", launch=first),
    ]
    assert cells(other_differences(labelled(runs))) == {
        "git revision": [("a" * 12, ""), ("a" * 12 + "-dirty", ""), ("a" * 12, "")],
        "torch": [("2.11.0", ""), ("2.12.0", ""), ("2.11.0", "")],
    }


def test_many_runs_are_the_rows_of_a_table(tmp_path):
    runs = labelled([run_of(tmp_path / f"r{at}", recipe=recipe(seed=at)) for at in range(WIDE + 1)])
    table = keys_by_run("Recipes", recipe_differences(runs), runs)
    assert [column.name for column in table.columns] == ["run", "training.seed"] and len(table.rows) == WIDE + 1
    assert table.columns[1].number and table.rows[3][0] == "r3" and table.rows[3][1].text == "3"
    few = keys_by_run("Recipes", recipe_differences(runs[:2]), runs[:2])
    assert [column.name for column in few.columns] == ["key", "r0", "r1"]
