"""Nothing that must not leave this machine is in a page, wherever it was in the page's texts."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest
from support.report_pages import every_block, large_page

from olmoe_ft.report.page import render
from olmoe_ft.report.private import Private, private_here

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


@pytest.mark.parametrize("make", [every_block, large_page])
def test_a_page_that_was_cleaned_may_be_sent(make):
    """Its scripts, their hashes and its data hold nothing that is taken for a key or a name of ours."""
    page = render(make(), private_here([Path("runs/one")]))
    assert not private_here([]).has_key(page)
    assert PRIVATE.row(page) == page
