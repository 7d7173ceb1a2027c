"""Rows as files, and mixtures of them, tokenized by the tiny tokenizer and by one built as OLMoE's."""

import json
import shutil
from collections.abc import Callable

import pytest
from support.small_tokenizers import FOLDERS, small_tokenizer
from transformers import PreTrainedTokenizerBase

from olmoe_ft.data.mixture import Mixture, load_mixtures
from olmoe_ft.data.tokenizer import load_tokenizer
from olmoe_ft.recipe import Recipe


@pytest.fixture
def write(tmp_path) -> Callable[[str, list], str]:
    """`write(name, rows)` gives the path of a JSON lines file."""

    def write_rows(name: str, rows: list) -> str:
        (tmp_path / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
        return str(tmp_path / name)

    return write_rows


@pytest.fixture(params=FOLDERS)
def tokenizer(request) -> PreTrainedTokenizerBase:
    return small_tokenizer(request.param)


@pytest.fixture
def mixtures(tokenizer) -> Callable[..., tuple[Mixture, Mixture | None]]:
    """The training and evaluation rows of `sources`; further settings are those of `data`."""

    def load(sources, stage="sft", max_length=None, questions=(), seed=1, evaluation=(), training=None, **data):
        recipe = Recipe.model_validate(
            {
                "name": "x",
                "stage": stage,
                "model": {"path": "a/b"},
                "router": {"load_balancing_coef": 0, "z_loss_coef": 0, "train": "full"},
                "data": {"train": sources, "eval": list(evaluation), **data},
                "training": {"seed": seed, **(training or {})},
            }
        )
        return load_mixtures(recipe, max_length, tokenizer, questions)

    return load


@pytest.fixture
def mixture(mixtures) -> Callable[..., Mixture]:
    """The training rows alone."""
    return lambda *args, **settings: mixtures(*args, **settings)[0]


@pytest.fixture
def with_template(tmp_path) -> Callable[[str], PreTrainedTokenizerBase]:
    """OLMoE's tokenizer with another template, as a user has it who downloaded one."""

    def load(template):
        shutil.copytree(FOLDERS["olmoe"], tmp_path / "tokenizer", dirs_exist_ok=True)
        (tmp_path / "tokenizer/chat_template.jinja").write_text(template)
        config = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<|endoftext|>"}
        (tmp_path / "tokenizer/tokenizer_config.json").write_text(json.dumps(config))
        return load_tokenizer(str(tmp_path / "tokenizer"), 3072)

    return load
