"""The samples of evaluations in W&B: wandb is real and offline; only new rows are written for each evaluation."""

import json
from dataclasses import replace

import pytest
from support.evaluations import evaluation, sample

from olmoe_ft.recipe import load_recipe
from olmoe_ft.training import tracking
from olmoe_ft.training.run_directory import RunDirectory
from olmoe_ft.training.sample_table import COLUMNS, ROWS
from olmoe_ft.training.tracking import Tracking


@pytest.fixture(autouse=True)
def home(monkeypatch, tmp_path):
    """A home directory that cannot be written, and wandb without a key."""
    for name in ("WANDB_API_KEY", "WANDB_DATA_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", "/proc/none")
    monkeypatch.setenv("XDG_DATA_HOME", "/proc/none/data")
    monkeypatch.setenv("WANDB_CONFIG_DIR", str(tmp_path / "config"))
    monkeypatch.setenv("WANDB_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    tracking.tear_down()
    yield
    tracking.tear_down()


def start(name: str = "here", wandb: str = "offline") -> Tracking:
    run = RunDirectory(load_recipe("recipes/tiny/sft.yaml", [f"name={name}", f"tracking.wandb='{wandb}'"]))
    run.path.mkdir(parents=True, exist_ok=True)
    return Tracking(run.recipe, run)


def at(step: int, *ids: int, **others):
    samples = [sample(number, output=f"{step}: {number}", **others) for number in ids]
    return evaluation("training", step, samples)


def increments(folder) -> list[list[list]]:
    """The rows in each file of the table, in the order of their steps."""
    tables = [json.loads(file.read_text()) for file in folder.glob("wandb/offline-run-*/files/media/table/eval/*.json")]
    assert all(table["columns"] == list(COLUMNS) for table in tables)
    return sorted(table["data"] for table in tables)


def test_scores_are_one_record_and_each_evaluation_adds_its_rows_alone(tmp_path, capfd):
    """Three evaluations in two launches: a file of the table each, with its own rows, and two copies to be uploaded.

    One of two answers is right at each step, so the score is 1/2; `evaluation` gives all a standard error of 1/8.
    """
    folder = tmp_path / "runs/here"
    found = start()
    for step in (5, 10):
        found.record_evaluation(evaluation("training", step, [sample(0, output=f"{step}"), sample(1, right=False)]))
    found.finish({})
    again = start()
    again.record_evaluation(evaluation("after", 15, [sample(0, output="15"), sample(1, right=False)]))
    again.finish({})
    records = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert records == [
        {"step": step, "eval/sums/exact_match": 0.5, "eval/sums/exact_match_stderr": 0.125} for step in (5, 10, 15)
    ]
    busiest = "layer 1 expert 3: 50%, layer 0 expert 2: 25%"
    prompts = [sample(number).prompt for number in (0, 1)]
    assert increments(folder) == [
        [
            [step, "sums", 0, prompts[0], f"{step}", "0", True, 2, busiest],
            [step, "sums", 1, prompts[1], "7", "2", False, 2, busiest],
        ]
        for step in (5, 10, 15)
    ]
    staged = [json.loads(file.read_text()) for file in (folder / "wandb/artifacts/staging").iterdir() if file.is_file()]
    assert {(table["increment_num"], len(table["data"])) for table in staged if "data" in table} == {(0, 2), (1, 2)}
    assert "W&B: off" not in capfd.readouterr().err


def test_the_same_first_questions_of_each_task_are_shown_each_time(tmp_path):
    """Whatever the order of the samples; 20 of a task."""
    found = start()
    for step, ids in ((1, range(30)), (2, reversed(range(30)))):
        both = at(step, *ids)
        found.record_evaluation(replace(both, samples=[*both.samples, sample(7, task="other")]))
    found.finish({})
    shown = [[(row[1], row[2]) for row in rows] for rows in increments(tmp_path / "runs/here")]
    assert shown == 2 * [[("other", 7), *(("sums", number) for number in range(ROWS))]]


def test_long_texts_lose_their_middle(tmp_path):
    found = start()
    found.record_evaluation(at(1, 0, prompt="a" * 50_000 + "?"))
    found.finish({})
    [[row]] = increments(tmp_path / "runs/here")
    assert row[3] == "a" * 2000 + "\n[… 45,001 characters are left out …]\n" + "a" * 2999 + "?"


def test_an_evaluation_without_samples_or_without_wandb_is_a_record(tmp_path):
    found = start()
    found.record_evaluation(replace(at(1, 0), samples=[]))
    found.finish({})
    assert not increments(tmp_path / "runs/here")
    off = start("other", "off")
    off.record_evaluation(at(1, 0))
    for name in ("here", "other"):
        assert json.loads((tmp_path / "runs" / name / "metrics.jsonl").read_text())["eval/sums/exact_match"] == 1.0


def test_where_the_table_fails_the_records_go_on(monkeypatch, tmp_path, capfd):
    """The folder that the user has named for what is to be uploaded cannot be written."""
    monkeypatch.setenv("WANDB_DATA_DIR", "/proc/none")
    found = start()
    for step in (1, 2):
        found.record_evaluation(at(step, 0))
    assert found.wandb_run is not None
    assert found.wandb_run.summary["eval/sums/exact_match"] == 1.0 and found.wandb_run.summary["step"] == 2
    found.finish({})
    assert len((tmp_path / "runs/here/metrics.jsonl").read_text().splitlines()) == 2
    assert capfd.readouterr().err.count("W&B: no samples from here on, as they failed: Unable to write staging") == 1
