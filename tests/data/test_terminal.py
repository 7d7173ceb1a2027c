import io

import pytest
from rich.console import Console

from olmoe_ft.data.audit import audit
from olmoe_ft.data.report import print_audit
from olmoe_ft.data.terminal import printable


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain\ttext\n", "plain\ttext\n"),
        ("\x1b]0;title\x07\x1b[2J", "\\x1b]0;title\\x07\\x1b[2J"),
        ("a\rb\x00\x7f\x9b", "a\\rb\\x00\\x7f\\x9b"),
        ("\u202eabc\u2066", "\\u202eabc\\u2066"),
        ("\ud800", "\\ud800"),
        ("שלום, 你好 👩‍👩‍👧 e\u0301", "שלום, 你好 👩‍👩‍👧 e\u0301"),  # languages and their joiners stay
    ],
)
def test_what_steers_a_terminal_is_escaped(text, shown):
    assert printable(text) == shown


def test_rows_and_keys_do_not_steer_the_terminal(write, mixture, tokenizer):
    odd = "\x1b]0;title\x07\u202e"
    rows = [
        {"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": odd + "a"}], odd: "x"},
        {"messages": [{"role": odd, "content": "q"}]},
    ]
    found = mixture([{"path": write("rows.jsonl", rows)}], malformed="drop", max_dropped=1)
    stream = io.StringIO()
    print_audit(audit(found), found, tokenizer, Console(file=stream, width=120))
    assert not {"\x1b", "\x07", "\u202e"} & set(stream.getvalue())
    assert "\\x1b]0;title\\x07\\u202ea" in stream.getvalue()
