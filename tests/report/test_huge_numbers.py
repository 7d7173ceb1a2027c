"""Numbers near the largest float, and whole ones beyond it, never make a page fail, nor warn."""

import json
import warnings

import pytest
from support.evaluations import evaluation, sample
from support.run_folders import make_run

from olmoe_ft.evaluation.files import EVALUATIONS, read_evaluations
from olmoe_ft.recipe import UserError
from olmoe_ft.report.files.run_files import read_run
from olmoe_ft.report.page.numbers import number, rounded
from olmoe_ft.report.run_page import run_page

BEYOND = 10**400
NAMES = (
    "loss", "loss/task", "eval_loss", "num_tokens", "perf/tokens_per_second", "perf/peak_memory_gib", "perf/padding",
    "router/max_violation", "router/dead_experts", "router/drift_agreement", "router/entropy", "optim/moved",
    "eval/a/exact_match", "eval/a/exact_match_stderr",
)  # fmt: skip


@pytest.mark.parametrize("huge", [1e308, -1e308, 1.7e308, BEYOND, -BEYOND, 5e-324])
@pytest.mark.parametrize("every", [1, 2, 3])
def test_a_page_of_huge_numbers(tmp_path, huge, every):
    """In all records, in every second and third one, beside ordinary values."""
    records = [{"step": step, **dict.fromkeys(NAMES, huge if step % every == 0 else 1.0)} for step in range(1, 31)]
    memory = {"peak": huge, "weights": huge}
    plan = {"gpu": True, "memory": memory, "steps": huge, "tokens": huge, "seconds_per_step": huge}
    ended = {"how": "finished", "reason": None, "step": 30, "seconds": huge, "energy_joules": huge}
    (tmp_path / "x").mkdir()
    (tmp_path / "x/metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    launches = [{"processes": 1, "device": "cuda:0", "started": "then", "ended": ended}]
    run = make_run(tmp_path / "x", launches=launches, plan=plan, summary={"steps": 30, "train_seconds": huge})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert run_page(run).tiles


@pytest.mark.parametrize("key", ["value", "stderr", "n", "clean_n", "clean_value"])
@pytest.mark.parametrize("whole", [BEYOND, -BEYOND])
def test_a_whole_number_beyond_all_floats_is_damage(tmp_path, key, whole):
    run = make_run(tmp_path / "x", evaluations=[evaluation("after", 9, [sample(0)])])
    content = json.loads((run.path / EVALUATIONS).read_text())
    content["evaluations"][0]["scores"][0][key] = whole
    (run.path / EVALUATIONS).write_text(json.dumps(content))
    with pytest.raises(UserError, match="evaluation.json: it cannot be read"):
        read_evaluations(run.path)
    assert "evaluation.json: it cannot be read" in read_run(run.path).unreadable[0]
    scores = content["evaluations"][0]["scores"]
    of_summary = make_run(tmp_path / "y", summary={"steps": 9, "scores": {"after": scores}})
    assert of_summary.evaluated.scores("after") == [] and "summary.json cannot be read" in of_summary.unreadable[0]


@pytest.mark.parametrize("whole", [BEYOND, -BEYOND])
def test_a_whole_number_beyond_all_floats_on_a_page(whole):
    assert number(whole) == "–" and rounded([1.0, whole], 3) == [1, None]
