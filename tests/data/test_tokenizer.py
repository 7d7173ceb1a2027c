import json
import shutil
from pathlib import Path

import pytest

from olmoe_ft.data.tokenizer import CHAT_TEMPLATE, load_tokenizer
from olmoe_ft.recipe import RecipeError

SKILLS = Path(__file__).parents[2] / "data/skills/tokenizer"


@pytest.fixture
def changed(tmp_path):
    """The skills tokenizer with some entries of its configuration changed."""

    def make(**entries) -> str:
        shutil.copytree(SKILLS, tmp_path / "tokenizer")
        file = tmp_path / "tokenizer" / "tokenizer_config.json"
        config = {**json.loads(file.read_text()), **entries}
        file.write_text(json.dumps({key: value for key, value in config.items() if value is not None}))
        return str(tmp_path / "tokenizer")

    return make


def test_a_tokenizer_without_a_template_gets_olmoes(changed):
    assert load_tokenizer(changed(chat_template=None), 512).chat_template == CHAT_TEMPLATE


def test_a_template_that_writes_the_same_text_without_marks_is_replaced(changed):
    unmarked = CHAT_TEMPLATE.replace("{%- generation -%}", "").replace("{%- endgeneration -%}", "")
    assert "generation -%}" not in unmarked
    assert load_tokenizer(changed(chat_template=unmarked), 512).chat_template == CHAT_TEMPLATE


def test_another_template_without_marks_is_refused(changed):
    with pytest.raises(RecipeError, match="no {% generation %} marks"):
        load_tokenizer(changed(chat_template="{% for m in messages %}{{ m['content'] }}{% endfor %}"), 512)


def test_pad_must_not_be_eos(changed):
    with pytest.raises(RecipeError, match="EOS would never be learned"):
        load_tokenizer(changed(pad_token="<|endoftext|>"), 512)


def test_a_vocabulary_beyond_the_models_is_refused():
    with pytest.raises(RecipeError, match="512 tokens, but the model's vocab_size is 500"):
        load_tokenizer(str(SKILLS), 500)


def test_code_of_a_tokenizer_is_neither_run_nor_asked_for(changed, tmp_path, monkeypatch):
    """transformers would ask on a terminal, and run it on "y"."""
    asked = []
    monkeypatch.setattr("builtins.input", lambda question: asked.append(question) or "y")
    for auto_map in ({"AutoTokenizer": ["own.Own", None]}, ["own.Own", None]):
        path = changed(auto_map=auto_map, tokenizer_class="Own")
        (tmp_path / "tokenizer/own.py").write_text(f"open({str(tmp_path / 'trace')!r}, 'w')\nclass Own: pass\n")
        with pytest.raises(
            RecipeError,
            match=r"found auto_map in its tokenizer_config\.json, which asks for",
        ):
            load_tokenizer(path, 512)
        shutil.rmtree(path)
    assert not asked and not (tmp_path / "trace").exists()
