"""Rows as files: `write(name, rows)` gives the path of a JSON lines file."""

import json
from collections.abc import Callable

import pytest


@pytest.fixture
def write(tmp_path) -> Callable[[str, list], str]:
    def write_rows(name: str, rows: list) -> str:
        (tmp_path / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
        return str(tmp_path / name)

    return write_rows
