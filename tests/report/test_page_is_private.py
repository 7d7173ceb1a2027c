"""Nothing that must not leave this machine is in a page, wherever it was in the page's texts."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.report_pages import every_block, large_page

from olmoe_ft.report.page.blocks import Code, Prose
from olmoe_ft.report.page.clean import cleaned
from olmoe_ft.report.page.render import render
from olmoe_ft.report.private.private import Private, private_here
from olmoe_ft.report.texts import Long

HERE = "/disk/people/carol/project"
PLANTED = {
    "a key": "hf_abcdefghijklmnopqrstuvwxyzABCDEFGH",
    "a key of W&B": "0123456789abcdef0123456789abcdef01234567",
    "a password here": "of-the-environment",
    "the working folder": f"{HERE}/runs/one",
    "the home folder": "/disk/people/carol/rows.jsonl",
    "a host": "planted-node-7",
}
IN_FIELDS = {
    "a folder elsewhere": "/srv/dave/rows.jsonl",
    "a folder of Windows": "C:\\Users\\dave\\rows.jsonl",
    "a password by its name": "hub_token=swordfish9",
    "an address": "10.20.30.40",
}
NOT_IN_IT = ("hf_abc", "01234567", "of-the-environment", "carol", "planted-node", "dave", "swordfish9", "10.20.30")
PRIVATE = Private(
    keys=frozenset({"of-the-environment"}),
    hosts=frozenset({"planted-node-7"}),
    folders=((HERE, ""), ("/disk/people/carol", "~")),
    users=frozenset({"carol"}),
)
OF_ROWS = ("spans", "prompt", "expected", "text")
WITH_ROWS = ("TrainingRow", "Question", "Answer")


def with_text(value: Any, text: str, rows: bool) -> Any:
    """A page with a text behind each of its texts.

    Args:
        rows: whether also where the words are the data's or a model's.
    """
    if isinstance(value, str):
        return f"{value} {text}".strip()
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {one.name: getattr(value, one.name) for one in dataclasses.fields(value)}
        kept = ["id", "tone", "section", *(OF_ROWS if type(value).__name__ in WITH_ROWS and not rows else ())]
        changed = {key: item if key in kept else with_text(item, text, rows) for key, item in fields.items()}
        return dataclasses.replace(value, **changed)
    if isinstance(value, dict):
        return {with_text(key, text, rows): with_text(item, text, rows) for key, item in value.items()}
    if isinstance(value, list | tuple):
        items = [with_text(item, text, rows) for item in value]
        return items if isinstance(value, list) else tuple(items)
    return value


@pytest.mark.parametrize("text", PLANTED.values(), ids=PLANTED)
def test_what_is_private_is_nowhere(text):
    page = render(with_text(every_block(), text, rows=True), PRIVATE)
    assert not [private for private in NOT_IN_IT if private in page]


@pytest.mark.parametrize("text", IN_FIELDS.values(), ids=IN_FIELDS)
def test_what_looks_private_is_in_no_text_of_ours(text):
    page = render(with_text(every_block(), text, rows=False), PRIVATE)
    assert not [private for private in NOT_IN_IT if private in page]


FOLDER = "/srv/dave's: my project, with a name that a line of YAML cannot hold, " + "so long as it is " * 8
RECIPE = {"model": {"path": f"{FOLDER}/base"}, "note": f"in {FOLDER}/x: of-the-environment", "lr": 1e-5, "on": [True]}


def test_values_are_cleaned_before_yaml_folds_and_escapes_them():
    private = dataclasses.replace(PRIVATE, paths=frozenset({f"{FOLDER}/base", f"{FOLDER}/x"}))
    shown = cleaned(Code("recipe.yaml", RECIPE), private).text
    assert yaml.safe_load(shown) == {
        "model": {"path": "…/base"}, "note": "in …/x: [key removed]", "lr": 1e-5, "on": [True],
    }  # fmt: skip


KEY = PLANTED["a key"]


@pytest.mark.parametrize("before", range(60, 140))
def test_a_text_is_cut_after_it_was_cleaned(before):
    """Of 200 characters 100 at either end are shown. The key of 37 lies at every place around the first edge."""
    text = "x" * (before - 1) + f" {KEY} " + "y" * 300
    shown = cleaned(Prose(Long(text, 200)), PRIVATE).text
    assert len(shown) < 250 and "characters are left out" in shown
    assert not any(KEY[place : place + 8] in shown for place in range(len(KEY) - 7))


@pytest.mark.parametrize("make", [every_block, large_page])
def test_a_page_that_was_cleaned_may_be_sent(make):
    """Its scripts, their hashes and its data hold nothing that is taken for a key or a name of ours."""
    page = render(make(), private_here([Path("runs/one")]))
    assert not private_here([]).has_key(page)
    assert PRIVATE.row(page) == page
