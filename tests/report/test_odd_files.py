"""Files of other versions and damaged ones never make a page fail."""

import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.evaluations import evaluation, sample
from support.run_folders import make_run, recipe_of

from olmoe_ft.report.answers import samples
from olmoe_ft.report.asked import asked
from olmoe_ft.report.data import data
from olmoe_ft.report.findings import findings
from olmoe_ft.report.run_files import read_run
from olmoe_ft.report.scores import scores

ODD: tuple[Any, ...] = (None, "x", -1, 2.5, [], [None], {}, {"x": []}, True)
SOURCE = {
    "path": "a",
    "rows": 9,
    "drawn": 3,
    "unread": {"id": 2},
    "dropped": {"malformed": 1},
    "problems": [{"reason": "malformed", "problem": "no", "rows": 1, "places": ["a:1"]}],
    "lengths": {"edges": [0, 5], "counts": [9]},
    "overlaps": {"q": {"rows": 1, "kept": 1, "prompts": 1}},
}
REPORT = {"rows": 8, "sources": [SOURCE], "groups": {"q": 2}, "findings": ["one"], "examples": [[["seen", "a"]]]}
ENDED = {"how": "failed", "reason": "no", "step": 3}
COMMAND = ["olmoe-ft", "train", "tiny/sft", "training.seed=2"]


def write(folder: Path) -> None:
    ones = [sample(number, right=number > 2) for number in range(6)]
    evaluations = [evaluation("before", 0, ones), evaluation("after", 9, ones)]
    make_run(
        folder,
        records=[{"step": 1, "loss": 2.0, "perf/peak_memory_gib": 3.0}, {"step": 2, "loss": 1.0}],
        evaluations=evaluations,
        launches=[{"command": COMMAND, "accepted": {"data": "x"}, "changed": ["a"], "ended": ENDED}],
        summary={"steps": 9, "before": {"exact_match": 0.5, "styles": {}, "skills": {}, "count": 4}},
        data_report=REPORT | {"evaluation": REPORT},
        plan={"gpu": True, "memory": {"peak": 1}},
    )


def places(value: Any, path: tuple = ()) -> Iterator[tuple]:
    """Where a value may be replaced, at every depth."""
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield from places(inner, (*path, key))


def replaced(value: Any, path: tuple, odd: Any) -> Any:
    if not path:
        return odd
    found = copy.copy(value)
    found[path[0]] = replaced(value[path[0]], path[1:], odd)
    return found


def read_all(folder: Path) -> None:
    run = read_run(folder)
    for section in (asked, data, samples, scores, findings):
        section(run)


@pytest.mark.parametrize("name", ["run", "summary", "data_report", "plan", "evaluation"])
def test_an_odd_value_anywhere_in_a_file(tmp_path, name):
    write(tmp_path)
    file = tmp_path / f"{name}.json"
    whole = json.loads(file.read_text())
    for path in places(whole):
        for odd in ODD:
            file.write_text(json.dumps(replaced(whole, path, odd)))
            try:
                read_all(tmp_path)
            except Exception as error:
                raise AssertionError(f"{name}.json with {odd!r} at {path}") from error


def test_an_odd_value_anywhere_in_the_recipe(tmp_path):
    write(tmp_path)
    whole = recipe_of("tiny/sft-lora")
    for path in places(whole):
        for odd in ODD[1:6:2]:
            (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(replaced(whole, path, odd)))
            read_all(tmp_path)


@pytest.mark.parametrize("name", ["run.json", "summary.json", "data_report.json", "plan.json", "evaluation.json"])
def test_a_file_that_is_cut_off_is_named(tmp_path, name):
    write(tmp_path)
    file = tmp_path / name
    file.write_text(file.read_text()[:-20])
    assert [one.text for one in findings(read_run(tmp_path)) if name in one.text]
    read_all(tmp_path)


def test_each_file_may_be_missing(tmp_path):
    write(tmp_path)
    for file in sorted(tmp_path.iterdir()):
        content = file.read_bytes()
        file.unlink()
        read_all(tmp_path)
        file.write_bytes(content)
