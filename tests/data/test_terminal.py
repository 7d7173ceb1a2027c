import io

import pytest
from rich.markup import escape
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from olmoe_ft.data.audit import audit
from olmoe_ft.data.audit_report import print_audit
from olmoe_ft.data.terminal import Console, middle_cut, printable, say


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain\ttext\n", "plain\ttext\n"),
        ("\x1b]0;title\x07\x1b[2J", "\\x1b]0;title\\x07\\x1b[2J"),
        ("a\rb\x00\x7f\x9b", "a\\rb\\x00\\x7f\\x9b"),
        ("\u202eabc\u2066", "\\u202eabc\\u2066"),
        ("\ud800", "\\ud800"),
        ("ad\u200bmin\ufeff\u2060\u200f", "ad\\u200bmin\\ufeff\\u2060\\u200f"),
        ("one\u2028two\x85", "one\\u2028two\\x85"),
        ("\U000e0041", "\\U000e0041"),
        ("\u061c\ufff9\u3164a\U000e0100\U000e01ef", "\\u061c\\ufff9\\u3164a\\U000e0100\\U000e01ef"),
        ("\u0600\u06dd ❤️", "\u0600\u06dd ❤️"),  # signs of Arabic that are seen, and of an emoji
        ("שלום, 你好 👩‍👩‍👧 e\u0301", "שלום, 你好 👩‍👩‍👧 e\u0301"),  # languages and their joiners stay
    ],
)
def test_what_steers_a_terminal_is_escaped(text, shown):
    assert printable(text) == shown


ODD = "\x1b]0;title\x07\x1b[2J\x1b]52;c;aGk=\x07\r\x9b31m\u202e\u200b"


@pytest.mark.parametrize(
    "shown",
    [
        lambda text: text,
        lambda text: Text(text),
        lambda text: Panel(text, title=text),
        lambda text: f"[bold]{text}[/bold]",
        lambda text: table(text),
    ],
    ids=["text", "styled", "panel", "markup", "table"],
)
def test_a_console_escapes_whatever_a_text_stands_in(shown):
    stream = io.StringIO()
    console = Console(file=stream, width=300)
    console.print(shown(ODD))
    console.rule(ODD)
    console.print(ODD, soft_wrap=True, markup=False)
    assert not set(ODD) - set(printable(ODD)) & set(stream.getvalue())
    assert stream.getvalue().count("\\x1b]0;title") >= 3  # rich leaves out the bell


def table(text: str) -> Table:
    found = Table(text, title=text)
    found.add_row(text)
    return found


def test_a_console_has_its_own_colours():
    stream, left = io.StringIO(), ODD.replace("\x07", "").replace("\r", "")  # rich leaves these out
    console = Console(file=stream, width=200, force_terminal=True, color_system="standard")
    console.print(f"[red]{escape('[link=x]' + ODD)}[/]", highlight=False)
    assert stream.getvalue() == f"\x1b[31m[link=x]{printable(left)}\x1b[0m\n"


def test_a_line_is_escaped(capsys):
    say(ODD)
    assert capsys.readouterr().out == printable(ODD) + "\n"


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


@pytest.mark.parametrize(
    ("text", "cut"),
    [
        ("abcdef", ("abcdef", "", 0)),  # as long as both sides
        ("abcdefg", ("ab", "defg", 1)),
        ("a\nb\nc\nd", ("a\nb\nc\nd"[:2], "\nc\nd", 1)),  # four lines are no more than two on either side
        ("\n\n\n\n", ("\n", "\n", 2)),  # five lines, each empty: two on either side
        ("", ("", "", 0)),
    ],
)
def test_the_middle_of_a_long_text_is_left_out(text, cut):
    """Two characters are kept of the start and four of the end, and two lines on either side."""
    assert middle_cut(text, 2, 4, lines=2) == cut


def test_lines_are_all_kept_where_none_are_counted():
    assert middle_cut("\n" * 6, 2, 4) == ("\n" * 6, "", 0)
