"""The page of a pipeline: its stages one after the other."""

import os

import pytest
from support.evaluations import sample
from support.side_by_side import RECIPE, asked, run_of, write_probe

from olmoe_ft.recipe import UserError
from olmoe_ft.report.files.run_files import stages_of
from olmoe_ft.report.page.blocks import Curves, HeatMaps, Prose
from olmoe_ft.report.pipeline_page import pipeline_page


@pytest.fixture
def pipeline(tmp_path):
    """SFT of 20 steps, then DPO of 30, which failed."""
    failed = {"ended": {"how": "failed", "reason": "out of memory", "step": 30, "seconds": 1800}}
    right = [asked([sample(at, right=at >= wrong) for at in range(8)], step) for wrong, step in ((8, 20), (0, 30))]
    sft, dpo = ({**RECIPE, "name": f"p/{stage}", "stage": stage} for stage in ("sft", "dpo"))
    run_of(tmp_path / "p" / "sft", [3.0, 2.0], sft, evaluations=right[:1])
    run_of(tmp_path / "p" / "dpo", [0.9, 0.8, 0.7], dpo, failed, right[1:], finished=False)
    for number, name in enumerate(("sft", "dpo")):  # in the order in which they were trained
        os.utime(tmp_path / "p" / name / "recipe.yaml", (number, number))
        (tmp_path / "p" / name / "report.html").touch()
    write_probe(tmp_path / "p" / "sft", [0, 0, 0, 0], [0, 1, 2, 3])
    write_probe(tmp_path / "p" / "dpo", [0, 1, 2, 3], None)
    return tmp_path / "p"


def section(page, id):
    return next(one for one in page.sections if one.id == id)


def test_stages_lead_to_their_own_pages(pipeline):
    """One GPU-hour is two processes for 1,800 s."""
    page = pipeline_page(pipeline)
    [table] = section(page, "stages").blocks
    assert [(row[0].text, row[0].link, row[1].text) for row in table.rows] == [
        ("sft", "sft/report.html", "finished"),
        ("dpo", "dpo/report.html", "failed"),
    ]
    assert [row[2] for row in table.rows] == ["20", "30"]
    assert page.title == "p" and page.kind == "pipeline: SFT, then DPO"
    assert (page.status.text, page.status.note, page.status.tone) == ("failed", "dpo, step 30", "bad")
    tiles = {name: cell.text for name, cell in page.tiles}
    assert tiles == {
        "stages": "2",
        "steps": "50",
        "tokens": "5,000",
        "GPU-hours": "2",
        "sums exact_match": "100.0%",
    }


def test_curves_follow_each_other(pipeline):
    """DPO's first record, its step 10, is step 30 of the pipeline."""
    first, *blocks = section(pipeline_page(pipeline), "curves").blocks
    assert isinstance(first, Prose) and first.text.endswith("sft from step 0, dpo from step 20.")
    loss = next(one for one in blocks if isinstance(one, Curves) and one.title == "Loss")
    assert [(one.group, list(one.x), list(one.y)) for one in loss.series] == [
        ("sft", [10, 20], [3, 2]),
        ("dpo", [30, 40, 50], [0.9, 0.8, 0.7]),
    ]


def test_experts_from_stage_to_stage(pipeline):
    [maps, *_] = section(pipeline_page(pipeline), "experts").blocks
    assert isinstance(maps, HeatMaps)
    assert {one.kind: one.values for one in maps.maps} == {
        "before sft": [[4, 0, 0, 0]],
        "after sft": [[1, 1, 1, 1]],
        "what sft changed": [[-3, 1, 1, 1]],
    }


def test_scores_after_each_stage(pipeline):
    """Eight gained: p = 2 / 2^8 = 0.0078."""
    [table, _] = section(pipeline_page(pipeline), "scores").blocks
    assert [cell.text for cell in table.rows[0][1:]] == ["0.0%", "100.0%"]
    assert table.rows[0][2].note == "± 12.5; p = 0.0078"


def test_findings_of_all_stages_the_worst_first(pipeline):
    found = pipeline_page(pipeline).findings
    assert found[0].tone == "bad" and found[0].text.startswith("dpo: ") and "out of memory" in found[0].text
    assert any(one.text.startswith("sft: ") for one in found)


def stage_of(folder, name, path=None, started=None, written=0):
    """A stage that starts from the weights at `path`, and when its recipe was written."""
    launch = {"started": started} if started else {}
    run_of(folder / name, recipe={**RECIPE, "name": f"p/{name}", "model": {"path": path}}, launch=launch)
    os.utime(folder / name / "recipe.yaml", (written, written))


def test_the_order_is_that_of_the_first_launches(tmp_path):
    """Recipes are written anew when a stage is continued, copied or unpacked."""
    for name, started, written in (("b", "08:00:00", 3), ("a", "09:30:00", 1), ("c", "09:00:00", 2)):
        stage_of(tmp_path, name, "weights", f"2026-11-28T{started}Z", written)
    assert [place.name for place in stages_of(tmp_path)] == ["b", "c", "a"]


def test_without_the_times_of_all_a_stage_comes_after_the_one_it_starts_from(tmp_path):
    """Folders of a copy have other paths than their recipes say; `other` belongs to no chain and was written first."""
    stage_of(tmp_path / "moved", "third", "runs/p/second/checkpoints/step-5", written=1)
    stage_of(tmp_path / "moved", "second", "/elsewhere/runs/p/first", "2026-11-28T08:00:00Z", written=2)
    stage_of(tmp_path / "moved", "first", "runs/q/third", written=3)
    stage_of(tmp_path / "moved", "other", written=0)
    assert [place.name for place in stages_of(tmp_path / "moved")] == ["other", "first", "second", "third"]


def test_a_stage_that_was_trained_anew_still_comes_before_the_next_one(tmp_path):
    stage_of(tmp_path, "sft", "weights", "2026-11-28T10:00:00Z")
    stage_of(tmp_path, "dpo", "runs/p/sft", "2026-11-28T09:00:00Z")
    assert [place.name for place in stages_of(tmp_path)] == ["sft", "dpo"]


def test_recipes_that_name_each_other_are_in_some_order(tmp_path):
    stage_of(tmp_path, "a", "runs/p/b")
    stage_of(tmp_path, "b", "runs/p/a")
    (tmp_path / "a" / "run.json").write_text('{"launches": [3]}')
    assert {place.name for place in stages_of(tmp_path)} == {"a", "b"}


def test_one_stage_so_far(tmp_path):
    run_of(tmp_path / "p" / "sft", recipe={**RECIPE, "name": "p/sft"}, finished=False)
    page = pipeline_page(tmp_path / "p")
    assert [one.id for one in page.sections] == ["stages", "curves", "cost"]
    assert [block.title for block in section(page, "curves").blocks[1:3]] == ["Loss", "Loss: loss/task"]


@pytest.mark.parametrize("kind", ["nothing", "runs of their own", "a sweep"])
def test_no_pipeline(tmp_path, kind):
    if kind == "runs of their own":
        run_of(tmp_path / "sft")
    if kind == "a sweep":
        run_of(tmp_path / "lr=1", recipe={**RECIPE, "name": "s/lr=1"})
        (tmp_path / "sweep.json").write_text("{}")
    with pytest.raises(UserError, match="found no stage of a pipeline"):
        pipeline_page(tmp_path)
