"""`olmoe-ft report`: where the page goes, and what stays as it is."""

import errno
import json
from functools import partial

import pytest
from support.side_by_side import RECIPE, run_of

from olmoe_ft.report import written


@pytest.fixture
def reported(command, tmp_path, monkeypatch):
    """`reported("runs/a", "--to", "x.html")` is what is printed; of a mistake the message."""
    monkeypatch.chdir(tmp_path)
    run_of(tmp_path / "runs" / "a")
    return partial(command, "report")


def test_the_page_is_in_the_run(reported, tmp_path):
    assert reported("runs/a") == "wrote runs/a/report.html\n"
    assert '<meta name="generator" content="olmoe-ft' in (tmp_path / "runs/a/report.html").read_text()


def test_a_page_elsewhere_writes_nothing_into_the_run(reported, tmp_path):
    before = sorted((tmp_path / "runs/a").iterdir())
    assert reported("runs/a", "--to", "page.html") == "wrote page.html\n"
    assert reported("runs/a", "--to", "page.html") == "wrote page.html\n"  # an older page is replaced
    assert sorted((tmp_path / "runs/a").iterdir()) == before
    (tmp_path / "mine.html").write_text("mine")
    assert "mine.html: found a file that olmoe-ft has not written; allowed: a new file" in reported(
        "runs/a", "--to", "mine.html"
    )
    assert (tmp_path / "mine.html").read_text() == "mine"
    assert "runs/b: there is no such run directory" in reported("runs/b", "--to", "b.html")
    assert not (tmp_path / "b.html").exists()


@pytest.mark.parametrize("machine", ["this launch", {"speed": 3}])
def test_a_damaged_plan_is_said_and_the_page_is_written(reported, tmp_path, machine):
    plan = json.dumps({"machine": machine, "steps": 3})
    (tmp_path / "runs/a/plan.json").write_text(plan)
    said = reported("runs/a")
    assert "check: its plan stays as it is: " in said and said.endswith("wrote runs/a/report.html\n")
    assert (tmp_path / "runs/a/plan.json").read_text() == plan


def test_a_pipeline_elsewhere_leads_to_no_page_that_is_not_there(reported, tmp_path):
    for stage in ("sft", "dpo"):
        run_of(tmp_path / "runs" / "p" / stage, recipe={**RECIPE, "name": f"p/{stage}"})
    reported("runs/p", "--to", "page.html")
    assert "sft/report.html" not in (tmp_path / "page.html").read_text()
    reported("runs/p")
    assert "sft/report.html" in (tmp_path / "runs/p/report.html").read_text()


@pytest.mark.parametrize(("code", "reason"), [(errno.EROFS, "Read-only file system"), (errno.ENOSPC, "No space left")])
def test_a_disk_that_takes_nothing_is_one_sentence_with_what_can_be_done(reported, monkeypatch, code, reason):
    """A test cannot mount a read-only disk, so the write fails as it does there."""

    def fail(page, file, private):
        raise OSError(code, reason, f"{file}.partial")

    monkeypatch.setattr(written, "write_page", fail)
    text = " ".join(reported("runs/a").split())
    assert f"runs/a/report.html.partial: {reason}" in text
    assert text.endswith("to write the page elsewhere: olmoe-ft report runs/a --to FILE")
    assert reported("runs/a", "--to", "page.html") == "wrote page.html\n"
