"""Fixtures for tests of task files."""

from pathlib import Path

import pytest
from support.task_folder import CODE, ROWS, TASK, write


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """A user's folder with a task, its rows and functions."""
    monkeypatch.chdir(tmp_path)
    Path("mine.yaml").write_text(TASK)
    Path("code.py").write_text(CODE)
    write("rows.jsonl", ROWS)
    return tmp_path
