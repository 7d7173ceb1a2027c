"""A small .gz or .parquet that becomes gigabytes is refused before its rows are read; whole files are read as ever."""

import gzip
import json
import os
import tracemalloc
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest

from olmoe_ft.data import files
from olmoe_ft.data.files import file_rows
from olmoe_ft.recipe import RecipeError

ROW = json.dumps({"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]}) + "\n"


@pytest.mark.parametrize("block", ["\0", "a", "[", '"x', ROW], ids=["zeros", "a word", "brackets", "a text", "rows"])
def test_a_bomb_is_a_sentence(tmp_path, monkeypatch, block):
    monkeypatch.setattr(files, "UNPACKED", 1 << 25)
    refuses(tmp_path / "rows.jsonl.gz", block)


@pytest.mark.parametrize("name", ["rows.jsonl.gz", "rows.json.gz", "rows.csv.gz"])
def test_so_is_one_of_each_kind(tmp_path, name):
    refuses(tmp_path / name, "\0")


def refuses(file: Path, block: str) -> None:
    member = gzip.compress(block.encode() * ((1 << 24) // len(block)))
    file.write_bytes(member * 300)  # 5 GB: gzip's files may stand one behind the other
    tracemalloc.start()
    try:
        with pytest.raises(RecipeError, match=rf"{file.name}: its first [\d,]+ bytes unpack to [\d,]+.*gunzip"):
            next(file_rows(file))
        assert tracemalloc.get_traced_memory()[1] < 1 << 26
    finally:
        tracemalloc.stop()


def test_a_bomb_behind_an_honest_start_is_found_while_it_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "LOOKED_AT", 1 << 10)
    monkeypatch.setattr(files, "UNPACKED", 1 << 20)
    start = json.dumps({"text": os.urandom(1 << 12).hex()}) + "\n"
    packed = gzip.compress(start.encode()) + gzip.compress(ROW.encode() * 100_000)
    (tmp_path / "rows.jsonl.gz").write_bytes(packed)
    rows = file_rows(tmp_path / "rows.jsonl.gz")
    assert next(rows)[1] == json.loads(start)
    with pytest.raises(RecipeError, match="gunzip"):
        next(row for row in rows if not row)


def test_so_is_a_parquet_whose_rows_all_name_one_long_text(tmp_path):
    """1,000 rows of 5 MB in 417 bytes; 64 of them are unpacked."""
    numbers, texts = pyarrow.array([0] * 1000, pyarrow.int32()), pyarrow.array(["a" * 5_000_000])
    table = pyarrow.table({"text": pyarrow.DictionaryArray.from_arrays(numbers, texts)})
    pyarrow.parquet.write_table(table, file := tmp_path / "rows.parquet", compression="zstd", store_schema=False)
    rows = file_rows(file)
    assert len([next(rows) for _ in range(48)]) == 48
    with pytest.raises(RecipeError, match=r"^\S*rows.parquet: its first 417 bytes unpack to 320,.*jsonl"):
        next(rows)


def test_what_is_packed_as_text_is_packed_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "UNPACKED", 1 << 16)
    rows = [{"text": f"row {number}: {os.urandom(64).hex()}"} for number in range(1000)]
    text = "".join(json.dumps(row) + "\n" for row in rows)
    (tmp_path / "rows.jsonl.gz").write_bytes(gzip.compress(text.encode()))
    assert [row for _, row in file_rows(tmp_path / "rows.jsonl.gz")] == rows
