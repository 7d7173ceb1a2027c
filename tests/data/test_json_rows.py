"""JSON read piece by piece means what it means read at once."""

import io
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from olmoe_ft.data import json_rows
from olmoe_ft.data.json_rows import json_values

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
    max_leaves=12,
)


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch):
    monkeypatch.setattr(json_rows, "CHUNK", 3)


def values(text):
    return list(json_values(io.StringIO(text)))


@settings(max_examples=150, deadline=None, derandomize=True)
@given(st.lists(VALUES, max_size=5), st.booleans(), st.sampled_from([None, 2]))
def test_an_array_and_values_in_a_row(rows, ascii_only, indent):
    texts = [json.dumps(row, ensure_ascii=ascii_only, indent=indent) for row in rows]
    assert values(json.dumps(rows, ensure_ascii=ascii_only, indent=indent)) == rows
    assert values("[" + " ,\n ".join(texts) + "]\n") == rows
    if not any(isinstance(row, list) for row in rows):
        assert values("\n".join(texts)) == rows


def test_arrays_one_after_the_other_are_one():
    assert values('[{"a": 1}, {"a": 2}]\n[]\n[{"a": 3}]') == [{"a": 1}, {"a": 2}, {"a": 3}]


def test_what_json_cannot_say_and_python_writes():
    """NaN is no value; infinities and half characters are what Python reads, in both kinds of files."""
    assert values('[{"a": NaN, "b": [NaN, 1]}, {"c": -Infinity}]') == [
        {"a": None, "b": [None, 1]},
        {"c": -float("inf")},
    ]
    assert values('["\\ud800"]') == ["\ud800"]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('[{"a": 1', "Expecting"),
        ('[{"a": 1}', "an array does not end"),
        ('[{"a": 1} {"b": 2}]', "found '{'; allowed: ',' or ']'"),
        ('[{"a": "x]', "Unterminated string"),
        ('[{"a": tru', "Expecting value"),
        ("[1,", "a value is missing"),
        ('{"a": 1, "a": 2}', "the key 'a' appears twice"),
        ('[{"a": {"b": 1, "c": 2, "b": 3}}]', "the key 'b' appears twice"),
        ("nothing", "Expecting value"),
    ],
)
def test_what_is_no_json(text, reason):
    with pytest.raises(ValueError, match=reason):
        values(text)


def test_an_early_mistake_is_found_before_the_rest_is_read():
    stream = io.StringIO('[{"a" 1}, ' + '{"b": 2}, ' * 100_000)
    with pytest.raises(ValueError, match="Expecting ':' delimiter"):
        list(json_values(stream))
    assert stream.tell() < 100
