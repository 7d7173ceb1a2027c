"""Recipes as files: `write(name, text)` puts one into an otherwise empty working directory."""

from collections.abc import Callable
from pathlib import Path

import pytest

Write = Callable[[str, str], str]

GOOD = """\
name: good
stage: sft
model: {path: runs/base}
router: {load_balancing_coef: 0.01, z_loss_coef: 1e-3, train: full}
data:
  train:
    - path: a.jsonl
    - {path: b.jsonl, weight: 0.2}
training:
  learning_rate: 2e-5
  max_length: null
"""


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    monkeypatch.chdir(tmp_path)

    def write_file(name: str, text: str) -> str:
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_text(text, encoding="utf-8")
        return name

    return write_file


@pytest.fixture
def good(write: Write) -> str:
    return write("good.yaml", GOOD)
