"""A chat template is a program of somebody else's: it may take little time and memory, and reach nothing."""

import psutil
import pytest

from olmoe_ft.data import confined
from olmoe_ft.data.confined import TooMuchError
from olmoe_ft.data.template import prompts, render
from olmoe_ft.data.tokenizer import CHAT_TEMPLATE
from olmoe_ft.recipe import RecipeError

LOOPS = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"
DOUBLING = "{% set n = namespace(x='ab') %}{% for i in range(60) %}{% set n.x = n.x ~ n.x %}{% endfor %}"
RECURSION = "{% macro f(x) %}{{ f(x + 1) }}{% endmacro %}{{ f(1) }}"
TOO_MUCH = r"takes longer than|needs more than 1 GiB of memory|writes [\d,]+ characters"  # whichever comes first
BOMBS = {
    "loops": (LOOPS, "takes longer than"),
    "one long instruction": ("{{ 10 ** (10 ** 9) }}", TOO_MUCH),
    "long while it is compiled": ("{{ 7 ** (7 ** 11) }}" * 9, TOO_MUCH),
    "doubling": (DOUBLING, TOO_MUCH),
    "a wide field": ("{{ '%99999999999d' % 1 }}", TOO_MUCH),
    "a long text": ("{{ 'a' * 10 ** 8 }}", TOO_MUCH),
    "a list": ("{{ range(99999)|map('string')|list|join('x' * 99999) }}", TOO_MUCH),
    "words": ("{{ lipsum(99, html=false, min=99999, max=100000) }}", TOO_MUCH),
    "a range": ("{% for i in range(10 ** 9) %}{% endfor %}", "Range too big"),
    "recursion": (RECURSION, "recursion"),
    "nested text": ("{{ " + "(" * 99_999 + ")" * 99_999 + " }}", "recursion|ended its process"),
}


@pytest.fixture(autouse=True)
def little_time(monkeypatch):
    monkeypatch.setattr(confined, "SECONDS", 0.5)


@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_is_a_sentence(name, with_template):
    template, reason = BOMBS[name]
    with pytest.raises(RecipeError, match=f"tokenizer: .*({reason})"):
        with_template(template + CHAT_TEMPLATE)


@pytest.mark.parametrize("reach", ["cycler.__init__.__globals__.os", "''.__class__.__mro__[1]", "messages.__class__"])
def test_nothing_outside_is_reached(reach, with_template, tmp_path):
    trace = tmp_path / "trace"
    with pytest.raises(RecipeError, match="unsafe"):
        with_template("{{ " + reach + f".mkdir('{trace}') }}}}" + CHAT_TEMPLATE)
    assert not trace.exists()


def test_a_bomb_that_waits_for_a_row_is_a_sentence_too(with_template):
    tokenizer = with_template("{% if messages[0].content == 'go' %}" + LOOPS + "{% endif %}" + CHAT_TEMPLATE)
    calm, armed = ([{"role": "user", "content": text}, {"role": "assistant", "content": "a"}] for text in ("no", "go"))
    assert [row.text for row in render([calm], tokenizer)]
    for act in (render, prompts):
        with pytest.raises(RecipeError, match="chat_template.jinja"):
            act([calm, armed], tokenizer)


def test_a_template_of_somebody_else_writes_as_before(with_template):
    other = CHAT_TEMPLATE.replace("<|user|>", "<|human|>")
    tokenizer = with_template(other)
    assert tokenizer.chat_template == other
    rows = [
        [{"role": "user", "content": f"😀 {number}"}, {"role": "assistant", "content": "é" * number}]
        for number in range(120)
    ]
    for row, rendered in zip(rows, render(rows, tokenizer), strict=True):
        assert rendered.text == tokenizer.apply_chat_template(row, tokenize=False)
        [(start, end)] = rendered.answers
        assert rendered.text[start:end] == row[1]["content"] + tokenizer.eos_token
    asked = [row[:1] for row in rows]
    assert prompts(asked, tokenizer) == tokenizer.apply_chat_template(asked, tokenize=False, add_generation_prompt=True)


def test_a_process_that_is_left_early_is_gone(monkeypatch):
    before = set(psutil.Process().children())  # those of other tests, such as W&B's
    numbers = confined.confined(lambda item: item, range(1000))
    assert next(numbers) == 0 and {*psutil.Process().children()} - before
    numbers.close()
    monkeypatch.setattr(confined, "MEMORY", 1 << 26)
    with pytest.raises(TooMuchError, match="memory"):
        [*confined.confined(lambda item: [0] * item, [1, 1 << 27])]
    assert not {*psutil.Process().children()} - before


def test_a_fault_of_the_work_is_no_fault_of_the_template(capfd):
    with pytest.raises(RuntimeError, match="the separate process failed"):
        [*confined.confined(lambda item: {}[item], ["missing"])]
    assert "KeyError: 'missing'" in capfd.readouterr().err
