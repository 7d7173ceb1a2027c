"""The page of several runs, its tables in the terminal, and the command."""

import math
import os
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from support.evaluations import sample
from support.side_by_side import RECIPE, asked, run_of, write_probe

from olmoe_ft.recipe import UserError
from olmoe_ft.report.comparison.comparison import comparison, summary_of
from olmoe_ft.report.comparison.curves_of_runs import LEAST, POINTS
from olmoe_ft.report.files.run_files import read_run
from olmoe_ft.report.page.blocks import Curves, Fold, HeatMaps, Page, Prose, Table
from olmoe_ft.report.page.render import render
from olmoe_ft.report.private.private import private_here


def section(page: Page, id: str):
    return next(one for one in page.sections if one.id == id)


def table_of(page: Page, number: int) -> list[dict[str, str]]:
    """A table of the summary, a line a run: 0 is the runs, 1 their figures."""
    table = summary_of(page)[number]
    names = [column.name for column in table.columns]
    rows = [[cell if isinstance(cell, str) else cell.text for cell in row] for row in table.rows]
    return [dict(zip(names, row, strict=True)) for row in rows]


def test_figures_of_each_run(tmp_path):
    """Two processes for half an hour are one GPU-hour. Of evaluation losses the lowest; of drift, the newest."""
    runs = [
        run_of(tmp_path / "a", [3.0, 2.0], router__drift_agreement=[0.9, 0.5], eval_loss=[1.5, 1.75]),
        run_of(tmp_path / "b", [3.0, math.nan], router__max_violation=[0.5, 0.25], finished=False),
    ]
    page = comparison(runs)
    first, second = table_of(page, 1)
    assert first == {
        "run": "a",
        "loss": "2.0000",
        "task loss": "1.9000",
        "best eval loss": "1.5000",
        "max violation": "",
        "drift agreement": "50.0%",
        "tokens/s": "50",
        "GPU-hours": "1",
    }
    assert (second["loss"], second["max violation"], second["best eval loss"]) == ("not finite", "0.25", "")
    assert [row["status"] for row in table_of(page, 0)] == ["finished", "killed"]
    assert page.status.text == "1 of 2 finished"
    assert page.findings[0].tone == "warn" and "b has not finished: killed, step 20 so far" in page.findings[0].text


def test_sorted_by_a_metric(tmp_path):
    """A loss: the lowest first; then what is not finite; then who lacks it."""
    runs = [
        run_of(tmp_path / "a", eval_loss=[1.0, math.nan]),
        run_of(tmp_path / "b", eval_loss=[1.0, 3.0]),
        run_of(tmp_path / "c"),
        run_of(tmp_path / "d", eval_loss=[4.0, 2.0]),
    ]
    page = comparison(runs, by="eval_loss")
    assert [row["run"] for row in table_of(page, 1)] == ["d", "b", "a", "c"]
    assert [row["run"] for row in table_of(page, 0)] == ["d", "b", "a", "c"]
    assert [row["eval_loss"] for row in table_of(page, 1)] == ["2", "3", "not finite", ""]
    assert ("best eval_loss", "2", "d") in [(name, cell.text, cell.note) for name, cell in page.tiles]
    speed = comparison(
        [runs[1], run_of(tmp_path / "e", perf__tokens_per_second=[70.0, 70.0])], "perf/tokens_per_second"
    )
    assert [row["run"] for row in table_of(speed, 1)] == ["e", "b"]


def test_sorted_by_a_score_the_highest_first(tmp_path):
    ones = [asked([sample(at, right=at not in wrong) for at in range(6)]) for wrong in ({0, 1}, {0})]
    runs = [run_of(tmp_path / name, evaluations=[one]) for name, one in zip("ab", ones, strict=True)]
    page = comparison(runs, by="eval/sums/exact_match")
    assert [row["run"] for row in table_of(page, 1)] == ["b", "a"]
    # one change: p = 1
    assert [row["p against a"] for row in table_of(page, 1)] == ["1", ""]
    assert [row["sums exact_match"] for row in table_of(page, 1)] == ["83.3%", "66.7%"]
    tiles = {name: (cell.text, cell.note) for name, cell in page.tiles}
    assert tiles["sums exact_match, of 2 runs"] == ("66.7% to 83.3%", "highest: b")


def test_a_metric_that_no_run_has(tmp_path):
    runs = [run_of(tmp_path / "a", grad_norm=[1, 1]), run_of(tmp_path / "b")]
    with pytest.raises(UserError) as error:
        comparison(runs, by="loss/tusk")
    assert "--by: found loss/tusk (did you mean `loss/task`?); allowed, as all of these runs have it:" in str(
        error.value
    )
    assert "loss, loss/task" in str(error.value) and "grad_norm" not in str(error.value)


def test_curves_over_each_other(tmp_path):
    """Each run a colour; what one run alone has is not compared. Before its first step nothing has drifted."""
    runs = [
        run_of(tmp_path / "a", [3.0, 2.0], router__drift_agreement=[0.9, 0.5], own=[1, 2], both=[1, 2]),
        run_of(tmp_path / "b", [3.0, math.nan, 1.0], router__drift_agreement=[0.8, 0.7, 0.6], both=[1, 2, 3]),
    ]
    blocks = section(comparison(runs), "curves").blocks
    charts = {block.title: block for block in blocks if isinstance(block, Curves)}
    [a, b] = charts["Loss"].series
    assert (a.name, a.group, list(a.x), list(a.y)) == ("a", "a", [10, 20], [3, 2])
    assert (b.name, b.group, list(b.x), list(b.y)) == ("b", "b", [10, 20, 30], [3, None, 1])
    [drift, _] = next(block for title, block in charts.items() if title.startswith("Choices kept")).series
    assert (list(drift.x), list(drift.y)) == ([0, 10, 20], [1, 0.9, 0.5])
    [fold] = [block for block in blocks if isinstance(block, Fold)]
    assert [block.title for block in fold.blocks] == ["both"]
    assert not any(isinstance(block, Prose) for block in blocks)


def test_scores_over_steps_of_what_was_asked_alike(tmp_path):
    def at(step, right, questions="q"):
        return asked([sample(0, right=right), sample(1)], step, "training", questions)

    runs = [
        run_of(tmp_path / "a", evaluations=[at(10, False), at(20, True)]),
        run_of(tmp_path / "b", evaluations=[at(10, False, "r"), at(20, False)]),
    ]
    charts = {one.title: one for one in section(comparison(runs), "curves").blocks if isinstance(one, Curves)}
    [a, b] = charts["eval/sums/exact_match"].series
    assert (a.x, list(a.y), a.errors, a.points) == ([10, 20], [0.5, 1], [0.125, 0.125], True)
    assert (b.x, list(b.y)) == ([20], [0.5])


def test_another_pace_is_said(tmp_path):
    """`b` sees twice as many tokens in a step."""
    runs = [run_of(tmp_path / "a"), run_of(tmp_path / "b", num_tokens=[2000.0, 4000.0])]
    first = section(comparison(runs), "curves").blocks[0]
    assert isinstance(first, Prose) and "equal steps are not equal work: a 100, b 200" in first.text


def test_experts_and_their_difference(tmp_path):
    """Four tokens, four experts: one each is 1 everywhere. `b` has two at expert 0 and two at expert 3: loads 2, 0, 0,
    2, half of which is at other experts than in `a`; entropy ln 2 = 0.693. `c` has another network, `d` no end."""
    runs = [run_of(tmp_path / name) for name in "abcde"]
    write_probe(tmp_path / "a", [0, 0, 0, 0], [0, 1, 2, 3])
    write_probe(tmp_path / "b", [0, 0, 0, 0], [0, 0, 3, 3])
    write_probe(tmp_path / "c", [0, 0, 0, 0], [0, 1, 2, 3], experts=8)
    write_probe(tmp_path / "d", [0, 0, 0, 0], None)
    (tmp_path / "e" / "routing_probe.safetensors").write_bytes(b"\x10damaged")
    page = comparison(runs)
    blocks = section(page, "experts").blocks
    [maps] = [block for block in blocks if isinstance(block, HeatMaps)]
    found = {one.kind: (one.values, one.difference) for one in maps.maps}
    assert found == {
        "a": ([[1, 1, 1, 1]], False),
        "b": ([[2, 0, 0, 2]], False),
        "b minus a": ([[1, -1, -1, 1]], True),
    }
    [table] = [block for block in blocks if isinstance(block, Table)]
    assert [cell if isinstance(cell, str) else cell.text for cell in table.rows[1]] == [
        *("b", "layer 0 expert 0", "2.00", f"{math.log(2):.3f}", "2", "50.0%")
    ]
    texts = " ".join(block.text for block in blocks if isinstance(block, Prose))
    assert "c has 1 x 8 experts" in texts and "d has no probe after training" in texts
    assert any("routing_probe.safetensors cannot be read" in one.text for one in page.findings)


def test_other_probes_are_named(tmp_path):
    runs = [run_of(tmp_path / name) for name in "ab"]
    for number, name in enumerate("ab"):
        write_probe(tmp_path / name, [0, 1], [0, 1], tokens=number)
    texts = [one.text for one in section(comparison(runs), "experts").blocks if isinstance(one, Prose)]
    assert any("not the same" in text for text in texts)


def test_what_it_cost(tmp_path):
    """20 steps of 100 tokens at 50 tokens/s are 40 s."""
    [table] = section(comparison([run_of(tmp_path / name) for name in "ab"]), "cost").blocks
    row = [cell if isinstance(cell, str) else cell.text for cell in table.rows[0]]
    assert row == ["a", "finished", "20", "2,000", "40.0 s", "50", "1", "2,000"]


def test_findings_of_scores_and_failures(tmp_path):
    """Seven gained: p = 2 / 2^7 = 0.0156, the only comparison."""
    before, after = (asked([sample(at, right=right) for at in range(7)]) for right in (False, True))
    failed = {"ended": {"how": "failed", "reason": "out of memory", "step": 20, "seconds": 9}}
    runs = [
        run_of(tmp_path / "a", evaluations=[before]),
        run_of(tmp_path / "b", evaluations=[after], launch=failed, finished=False),
    ]
    texts = [(one.tone, one.text) for one in comparison(runs).findings]
    assert texts == [
        ("bad", "b failed at step 20: out of memory"),
        ("good", "sums exact_match: b is better than a by 100.0 points (p = 0.016)"),
    ]


def test_damaged_and_empty_runs_are_compared_as_far_as_they_are(tmp_path):
    """Nothing but a recipe; a cut-off last line; files that are no JSON."""
    runs = [run_of(tmp_path / name, finished=False) for name in "ab"]
    (tmp_path / "a" / "metrics.jsonl").write_text("")
    (tmp_path / "a" / "run.json").write_text("{")
    (tmp_path / "b" / "evaluation.json").write_text("[]")
    with (tmp_path / "b" / "metrics.jsonl").open("a") as stream:
        stream.write('{"step": 30, "lo')
    page = comparison([read_run(one.path) for one in runs])
    texts = " ".join(one.text for one in page.findings)
    assert "run.json cannot be read" in texts and "evaluation.json" in texts
    assert [row["loss"] for row in table_of(page, 1)] == ["", "1.0000"]


def test_fifty_runs_fit_into_a_page(tmp_path):
    """The points of all curves together stay below the limit, and so does the page: 3 MB."""
    records = 400
    metrics = {f"m{number}": np.linspace(0.0, 1.0, records).tolist() for number in range(12)}
    runs = [run_of(tmp_path / f"run-{at:02d}", [1.0] * records, **metrics) for at in range(50)]
    page = comparison(runs)
    blocks = section(page, "curves").blocks
    charts = [one for one in blocks if isinstance(one, Curves)]
    charts += [one for fold in blocks if isinstance(fold, Fold) for one in fold.blocks]
    assert len(charts) == 15
    points = sum(len(one.x) for chart in charts for one in chart.series)
    assert 50 * 15 * LEAST <= points <= POINTS
    assert page.title == "run-00, run-01, run-02, run-03 …"
    assert len(render(page, private_here([one.path for one in runs]))) < 3_000_000


@pytest.fixture
def shown(command):
    """`shown("runs/a", "runs/b", columns=60)` is what is printed; of a mistake the message."""
    return partial(command, "compare")


@pytest.fixture
def runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    other = {**RECIPE, "training": {"learning_rate": 3e-5, "max_steps": 20}}
    run_of(tmp_path / "runs" / "a", [3.0, 2.0], router__max_violation=[1.0, 0.5], grad_norm=[1.0, 1.0])
    run_of(tmp_path / "runs" / "b\x1b[31m", [3.0, 1.5], recipe=other, grad_norm=[1.0, 1.0])
    return tmp_path / "runs"


@pytest.mark.parametrize("columns", [40, 80, 160])
def test_the_table_fits_the_terminal_and_the_page_is_beside_the_runs(runs, shown, columns):
    text = shown("runs/a", "runs/b\x1b[31m", "--by", "loss/task", columns=columns)
    lines = text.splitlines()
    assert max(map(len, lines[:-1])) <= columns and "\x1b" not in text
    assert lines[-1] == "the page: runs/compare.html"
    assert "learning_rate=3e-05" in text and "GPU-hours" in text
    assert text.index("1.4") < text.index("1.9")  # sorted: the lowest task loss first
    html = (runs / "compare.html").read_text()
    assert "learning_rate" in html and "\x1b" not in html


def test_the_file_can_be_named(runs, shown):
    assert "the page: page.html" in shown("runs/a", "runs/b\x1b[31m", "--to", "page.html")
    assert "runs: found a folder; allowed: a new file" in shown("runs/a", "runs/b\x1b[31m", "--to", "runs")
    assert "no/page.html: found no folder for it" in shown("runs/a", "runs/b\x1b[31m", "--to", "no/page.html")


def test_an_older_page_is_replaced_and_nothing_else_is(runs, shown):
    """Also where the name is not given: the file beside the runs is then someone's own."""
    both = ("runs/a", "runs/b\x1b[31m")
    assert "the page:" in shown(*both, "--to", "page.html") and "the page:" in shown(*both, "--to", "page.html")
    thesis = runs.parent / "thesis.html"
    thesis.write_text("<html>mine</html>")
    (runs.parent / "link.html").symlink_to(thesis)
    (runs.parent / "gone.html").symlink_to("nothing")
    os.mkfifo(runs.parent / "pipe.html")
    for name, what in {
        "thesis.html": "a file that olmoe-ft has not written",
        "link.html": "a link",
        "gone.html": "a link",
        "pipe.html": "a device or the like",
        "/dev/null": "a device or the like",
    }.items():
        assert f"{name}: found {what}; allowed: a new file" in shown(*both, "--to", name)
    (runs / "compare.html").write_text("mine")
    assert "runs/compare.html: found a file that olmoe-ft has not written" in shown(*both)
    assert (runs / "compare.html").read_text() == "mine" and thesis.read_text() == "<html>mine</html>"


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs a folder in which nobody can write")
def test_a_file_that_cannot_be_written_is_one_sentence(runs, shown):
    text = shown("runs/a", "runs/b\x1b[31m", "--to", "/proc/x.html")
    assert "/proc/x.html: it cannot be written (No such file or directory); name another file with --to" in text
    assert "name another file with --to" in shown("runs/a", "runs/b\x1b[31m", "--to", "x" * 300)


def test_a_pipeline_is_its_last_stage(runs, shown):
    for stage in ("sft", "dpo"):
        run_of(runs / "p" / stage, recipe={**RECIPE, "name": f"p/{stage}"})
    text = shown("runs/a", "runs/p")
    assert "runs/p is a pipeline; its last stage is compared, runs/p/dpo" in " ".join(text.split())
    assert [line.split()[0] for line in text.splitlines()[:3]] == ["run", "a", "p/dpo"]
    assert "the page: runs/p/compare.html" in shown("runs/p/sft", "runs/p/dpo")


def test_a_sweep_is_its_points(runs, shown):
    """One of them is a pipeline, and one was never begun."""
    for point in ("lr=1", "lr=2/sft", "lr=2/dpo"):
        run_of(runs / "s" / point, recipe={**RECIPE, "name": f"s/{point}"})
    (runs / "s" / "lr=3").mkdir()
    (runs / "s" / "sweep.json").write_text("{}")
    text = shown("runs/s")
    assert "runs/s is a sweep; its points are compared: lr=1, lr=2" in text
    assert [line.split()[0] for line in text.splitlines()[:3]] == ["run", "lr=1", "lr=2/dpo"]
    assert "the page: runs/s/compare.html" in text


def test_a_folder_of_runs_is_none(runs, shown):
    assert "runs: found neither recipe.yaml nor metrics.jsonl" in shown("runs", "runs/a")


def test_mistakes_are_one_sentence(runs, shown):
    assert "found 1 run; allowed: two or more" in shown("runs/a")
    assert "found runs/../runs/a twice" in shown("runs/a", "runs/../runs/a")
    assert "runs/no: there is no such run directory" in shown("runs/a", "runs/no")
    (runs / "empty").mkdir()
    assert "found neither recipe.yaml nor metrics.jsonl" in shown("runs/a", "runs/empty")
    assert "--by: found los (did you mean `loss`?)" in shown("runs/a", "runs/b\x1b[31m", "--by", "los")
    assert not (runs / "compare.html").exists()
