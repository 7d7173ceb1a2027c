"""What a template may write: every answer once, as it stands, with its end; and all the other turns."""

import json
import shutil

import pytest
from support.small_tokenizers import FOLDERS
from transformers.utils import logging

from olmoe_ft.data.rows import RowError
from olmoe_ft.data.template import render
from olmoe_ft.data.tokenizer import CHAT_TEMPLATE, load_tokenizer
from olmoe_ft.data.tokens import tokenize
from olmoe_ft.recipe import RecipeError

START = "{% generation %}"
LOOP = "{% for m in messages %}<|{{ m.role }}|>\n"
ANSWER = "{% if m.role == 'assistant' %}{% generation %}{{ m.content + eos_token }}{% endgeneration %}"
OTHER = "{% else %}{{ m.content }}{% endif %}\n{% endfor %}"
PLAIN = LOOP + ANSWER + OTHER


def conversation(*contents):
    roles = ("system", "user", "assistant")
    messages = [{"role": role, "content": text} for role, text in zip(roles, contents, strict=True)]
    return {"messages": messages, "learned": [False, False, True]}


def learned(tokenizer, *contents):
    [row] = tokenize([conversation(*contents)], tokenizer)
    return row if isinstance(row, RowError) else tokenizer.decode([token for token in row.labels if token != -100])


@pytest.mark.parametrize(
    "start",
    [
        "{% generation %}",
        "{%generation%}",
        "{%  generation  %}",
        "{%- generation -%}",
        "{%+ generation %}",
        "{%- generation%}",
    ],
)
def test_marks_with_any_spacing(with_template, start, caplog):
    """And nothing says that there are none, as transformers does of marks with a plus."""
    logging.warning_once.cache_clear()
    logging.get_logger("transformers.utils.chat_template_utils").addHandler(caplog.handler)
    assert learned(with_template(PLAIN.replace(START, start)), "s", "q", " a") == " a<|endoftext|>"
    logging.get_logger("transformers.utils.chat_template_utils").removeHandler(caplog.handler)
    assert caplog.messages == []


@pytest.mark.parametrize(
    ("template", "said"),
    [
        (PLAIN.replace("{{ m.content + eos_token }}", ""), r"marks \['', ''\] where the answers are \['c', 'e'\]"),
        (PLAIN.replace("m.content + eos_token", "'x' + m.content"), r"marks \['xc', 'xe'\] where the answers are"),
        (PLAIN.replace("m.role == 'assistant'", "loop.last"), r"marks \['e<.endoftext.>'\] where the answers are"),
        (PLAIN.replace("m.role == 'assistant'", "m.role != 'system'"), r"marks \['b<"),
        ("{{ raise_exception('no') }}" + PLAIN, r"refuses plain conversations \(no\)"),
    ],
)
def test_a_template_that_marks_something_else_is_refused(with_template, template, said):
    with pytest.raises(RecipeError, match=f"its chat template {said}"):
        with_template(template)


@pytest.mark.parametrize(
    ("template", "row", "said"),
    [
        # a template that trims would teach another answer
        (
            PLAIN.replace("{{ m.content +", "{{ m.content | trim +"),
            ("s", "q", " a"),
            "changes turn 2, an answer, from ' a' to 'a<",
        ),
        (
            PLAIN.replace("{{ m.content +", "{{ m.content.split('</t>')[-1] +"),
            ("s", "q", "x</t>a"),
            "changes turn 2, an answer, from 'x</t>a' to",
        ),
        # one that skips the system turn would teach the answer without its reason
        (PLAIN.replace("{% else %}", "{% elif m.role == 'user' %}"), ("strange", "q", "a"), "leaves out turn 0"),
        (PLAIN.replace("{% if", "{% if 'q' in m.content %}{% elif"), ("s", "q", "a"), "leaves out turn 1, user"),
        (
            PLAIN + "{% if 'two' in messages[-1].content %}{% generation %}x{% endgeneration %}{% endif %}",
            ("s", "q", "two"),
            "marks 2 answers to learn, but the row has 1",
        ),
    ],
)
def test_a_row_that_the_template_changes_is_an_error(with_template, template, row, said):
    tokenizer = with_template(template)
    [rendered] = render([conversation(*row)["messages"]], tokenizer)
    assert isinstance(rendered, RowError) and said in str(rendered)
    assert isinstance(learned(tokenizer, *row), RowError)


def test_a_template_that_trims_takes_answers_without_white_space_at_their_edges(with_template):
    tokenizer = with_template(PLAIN.replace("{{ m.content +", "{{ m.content | trim +"))
    assert learned(tokenizer, "s", "q", "a") == "a<|endoftext|>"


def test_an_end_that_is_not_eos_is_learned_as_it_stands(with_template):
    tokenizer = with_template(PLAIN.replace("m.content + eos_token", "m.content + '<end>\\n'"))
    assert learned(tokenizer, "s", "q", "a") == "a<end>\n"
    [row] = tokenize([conversation("s", "q", "a")], tokenizer)
    assert not row.ends_with_eos


def test_a_file_that_asks_for_truncation_does_not_cut_rows(tmp_path):
    shutil.copytree(FOLDERS["olmoe"], tmp_path / "tokenizer")
    file = tmp_path / "tokenizer/tokenizer.json"
    values = json.loads(file.read_text())
    values["truncation"] = {"direction": "Right", "max_length": 4, "strategy": "LongestFirst", "stride": 0}
    file.write_text(json.dumps(values))
    tokenizer = load_tokenizer(str(tmp_path / "tokenizer"), 3072)
    assert tokenizer.chat_template == CHAT_TEMPLATE
    assert (
        learned(tokenizer, "s", "q", "one two three four five six seven")
        == "one two three four five six seven<|endoftext|>"
    )


def test_a_tokenizer_that_loses_characters_is_an_error(tmp_path):
    """Without a token for a byte and without an unknown token, BPE leaves it out: the row would lose its é."""
    shutil.copytree(FOLDERS["olmoe"], tmp_path / "tokenizer")
    file = tmp_path / "tokenizer/tokenizer.json"
    values = json.loads(file.read_text())
    lost = {"Ã", "©"}  # the two bytes of é
    values["model"]["vocab"] = {token: id for token, id in values["model"]["vocab"].items() if not lost & set(token)}
    values["model"]["merges"] = [pair for pair in values["model"]["merges"] if not lost & set("".join(pair))]
    file.write_text(json.dumps(values))
    tokenizer = load_tokenizer(str(tmp_path / "tokenizer"), 3072)
    assert learned(tokenizer, "s", "q", "cafe") == "cafe<|endoftext|>"
    found = learned(tokenizer, "s", "q", "café")
    assert isinstance(found, RowError) and "changes the text 'café<|endoftext|>' to 'caf<" in str(found)
