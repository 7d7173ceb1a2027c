"""A page's HTML, without a browser: what is in it, what may run in it, and how large it is."""

import base64
import hashlib
import html.parser
import json
import re
from pathlib import Path

import pytest
from support.report_pages import HOSTILE, every_block, hostile_page, large_page, two_histograms

from olmoe_ft.data.terminal import printable
from olmoe_ft.report import page as report_page
from olmoe_ft.report.page.blocks import (
    Answer,
    Code,
    Curves,
    Facts,
    Histogram,
    Page,
    Prose,
    Question,
    Questions,
    TrainingRow,
)
from olmoe_ft.report.page.clean import cleaned
from olmoe_ft.report.page.render import anchor, in_a_row, placed, render, write_page
from olmoe_ft.report.private.private import private_here

PACKAGE = Path(report_page.__file__).parent


class Marking:
    """What is private, with a mark for which of the two was asked."""

    def field(self, text: str) -> str:
        return f"field({text})"

    def row(self, text: str) -> str:
        return f"row({text})"


class Scripts(html.parser.HTMLParser):
    """The scripts of a page as a parser of HTML finds them, attributes and content; and what all tags would run."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[dict, str]] = []
        self.handlers: list[str] = []
        self.inside = False
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.handlers += [name for name, _ in attributes if name.startswith("on")]
        self.inside = tag == "script"
        if self.inside:
            self.found.append((dict(attributes), ""))

    def handle_data(self, data):
        if self.inside:
            attributes, before = self.found[-1]
            self.found[-1] = (attributes, before + data)

    def handle_endtag(self, tag):
        self.inside = False


@pytest.mark.parametrize("make", [every_block, hostile_page])
def test_only_our_scripts_may_run(make):
    """Their hashes, worked out here from what a parser finds, are the policy's; all others are data."""
    text = render(make(), private_here([]))
    policy = re.search(r'http-equiv="Content-Security-Policy" content="([^"]*)"', text)[1].replace("&#39;", "'")
    rules = dict(rule.split(" ", 1) for rule in policy.split("; "))
    scripts = [content for attributes, content in Scripts(text).found if not attributes]
    hashes = [f"'sha256-{base64.b64encode(hashlib.sha256(one.encode()).digest()).decode()}'" for one in scripts]
    assert rules == {
        "default-src": "'none'",
        "script-src": " ".join(hashes),
        "style-src": "'unsafe-inline'",
        "img-src": "data:",
        "base-uri": "'none'",
        "form-action": "'none'",
    }
    data = [content for attributes, content in Scripts(text).found if attributes]
    assert len(data) > 5 and all(json.loads(one) for one in data)
    assert Scripts(text).handlers == []


def test_every_text_is_cleaned():
    """No control code of a hostile text is in the file, whichever block it was in."""
    text = render(hostile_page(), private_here([]))
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\u2028\u2029\u200b\ufeff]", text)
    assert "<script>window.pwned" not in text and "<img" not in text


def test_rows_and_fields_are_cleaned_each_in_its_way():
    """Texts of the data and of models are rows, all others fields, such as a title that names a row's file."""
    row = TrainingRow("Row 1", [("seen", "a\x07")])
    questions = Questions("Samples", [Question("sums", "1", "2", [Answer("after", "3")])], note="few")
    assert cleaned(row, Marking()) == TrainingRow("field(Row 1)", [["row(seen)", "row(a\\x07)"]])
    (question,) = cleaned(questions, Marking()).questions
    assert (question.prompt, question.expected, question.answers[0].text) == ("row(1)", "row(2)", "row(3)")
    assert cleaned(questions, Marking()).note == "field(few)"
    assert cleaned(Code("a", "b"), Marking()) == Code("field(a)", "field(b)")


def test_names_that_become_one_are_numbered():
    """Both would be lost in a mapping else."""
    block = Histogram("h", [0, 1], {"a\x07": [1], "a\\x07": [2]}, marks={"m": 1.0})
    found = cleaned(block, private_here([]))
    assert found.counts == {"a\\x07": [1], "a\\x07 (2)": [2]}
    assert found.marks == {"m": 1.0}


def test_charts_and_facts_are_two_in_a_row():
    """Of three charts the first, which matters most, has a row for itself; of three facts the last is alone."""
    chart, facts, prose = Curves("c", []), Facts("f", []), Prose("p")
    blocks = [chart, chart, chart, prose, chart, two_histograms(), facts, facts, facts, chart, chart]
    halves = [half for _, half in placed(blocks)]
    assert halves == [False, True, True, False, False, False, True, True, True, True, True]


def test_an_anchor_is_one_word():
    assert [anchor(text) for text in ("curves", "A b<c>", "")] == ["curves", "a-b-c-", "section"]


@pytest.mark.parametrize(("count", "beside"), [(1, 1), (6, 6), (7, 4), (8, 4), (13, 5)])
def test_tiles_fill_their_rows(count, beside):
    """Thirteen are 5 + 5 + 3."""
    assert in_a_row(range(count)) == beside


def test_a_page_of_nothing():
    status = every_block().status
    text = render(Page("", "", status, [], [], []), private_here([]))
    assert "Finished" in text and "<section" not in text


def test_a_page_is_written_whole(tmp_path):
    write_page(every_block(), tmp_path / "report.html", private_here([]))
    assert [file.name for file in tmp_path.iterdir()] == ["report.html"]
    assert (tmp_path / "report.html").read_text(encoding="utf-8").rstrip().endswith("</html>")


def test_a_large_page_is_small():
    """40 maps of 16 x 64 experts and 20 curves of 2,000 points; ours and uPlot's code alone are under 150 KB."""
    assert len(render(large_page(), private_here([])).encode()) < 1_500_000
    code = [file for file in (PACKAGE / "static").rglob("*") if file.suffix in (".js", ".css")]
    assert sum(file.stat().st_size for file in code) < 150_000


def test_uplot_is_unchanged_and_comes_with_its_licence():
    """Of each file the sum that is written down is its own, and the page has the licence that its copy needs."""
    folder = PACKAGE / "static/uplot"
    sums = dict(re.findall(r"\| `([^`]+)` \|[^|]+\| `([0-9a-f]{64})` \|", (folder / "README.md").read_text()))
    assert set(sums) == {"uPlot.iife.min.js", "uPlot.min.css", "LICENSE"}
    for name, expected in sums.items():
        assert hashlib.sha256((folder / name).read_bytes()).hexdigest() == expected
    assert (folder / "LICENSE").read_text().strip() in render(every_block(), private_here([]))


def test_hostile_texts_are_all_kinds():
    """So that the tests above mean something: each is cleaned or escaped, none is harmless but the last two."""
    changed = [printable(text) != text or re.search("[<>&'\"{]|javascript:", text) for text in HOSTILE]
    assert all(changed[:-2])
