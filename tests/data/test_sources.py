import gzip
import json

import pytest

from olmoe_ft.data.sources import load_mixture, load_source
from olmoe_ft.recipe import RecipeError
from olmoe_ft.recipe.schema import Source

ROWS = [{"prompt": f"q{number}", "completion": f"a{number}"} for number in range(10)]


def write(path, rows):
    text = json.dumps(rows) if path.suffix == ".json" else "".join(json.dumps(row) + "\n" for row in rows)
    if path.suffix == ".gz":
        path.write_bytes(gzip.compress(text.encode()))
    else:
        path.write_text(text)
    return str(path)


def questions(dataset):
    return [row["messages"][0]["content"] for row in dataset]


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.json", "rows.jsonl.gz"])
def test_every_row_is_read_in_order(tmp_path, name):
    source = Source(path=write(tmp_path / name, ROWS))
    assert questions(load_source(source, "sft")) == [f"q{number}" for number in range(10)]


def test_columns_and_parquet(tmp_path):
    import pandas

    pandas.DataFrame(ROWS).to_csv(tmp_path / "rows.csv", index=False)
    pandas.DataFrame(ROWS).to_parquet(tmp_path / "rows.parquet")
    for name in ("rows.csv", "rows.parquet"):
        assert questions(load_source(Source(path=str(tmp_path / name)), "sft")) == [f"q{n}" for n in range(10)]


def test_a_weight_is_the_share_of_rows_drawn(tmp_path):
    """2.0 gives every row twice, 0.3 of ten rows gives three, 1.5 all and half of them once more."""
    path = write(tmp_path / "rows.jsonl", ROWS)
    assert len(load_mixture([Source(path=path, weight=0.3)], "sft", 0)) == 3
    doubled = questions(load_mixture([Source(path=path, weight=2.0)], "sft", 0))
    assert sorted(doubled) == sorted([f"q{number}" for number in range(10)] * 2)
    half_more = questions(load_mixture([Source(path=path, weight=1.5)], "sft", 0))
    assert len(half_more) == 15 and len(set(half_more)) == 10


def test_a_mixture_depends_on_its_seed_alone(tmp_path):
    sources = [
        Source(path=write(tmp_path / "a.jsonl", ROWS), weight=0.5),
        Source(path=write(tmp_path / "b.jsonl", ROWS[:4]), max_rows=3),
    ]
    first, again, other = (questions(load_mixture(sources, "sft", seed)) for seed in (1, 1, 2))
    assert first == again and first != other and len(first) == 8


def test_a_changed_file_is_read_again(tmp_path):
    path = tmp_path / "rows.jsonl"
    write(path, ROWS[:2])
    assert len(load_source(Source(path=str(path)), "sft")) == 2
    write(path, ROWS[:5])
    assert len(load_source(Source(path=str(path)), "sft")) == 5


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("empty.jsonl", "", "empty.jsonl: the data set is empty"),
        ("broken.jsonl", '{"prompt": "q", "completion": "a"}\n{"prompt": ', "broken.jsonl:2: not valid JSON"),
        ("broken.json", "[1, 2", "broken.json:1: not valid JSON"),
        ("rows.jsonl", '\n{"prompt": "q"}\n', "rows.jsonl:2: has the keys prompt"),
        ("list.jsonl", "[1]\n", r"list.jsonl:1: a row must be an object"),
        ("rows.txt", "hello", "cannot read this kind of file"),
        ("binary.jsonl", b"\xff\xfe\x00", "not readable as UTF-8"),
        ("rows.jsonl.gz", b"no gzip", "not readable as UTF-8"),
    ],
)
def test_what_is_wrong_with_a_file_is_one_sentence_with_its_place(tmp_path, name, content, message):
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(RecipeError, match=message):
        load_source(Source(path=str(path)), "sft")


@pytest.mark.parametrize(
    ("path", "message"),
    [("data/nothing.jsonl", "does not exist"), ("runs/x/y", "does not exist"), (".", "is a folder")],
)
def test_a_path_that_is_no_file(path, message):
    with pytest.raises(RecipeError, match=message):
        load_source(Source(path=path), "sft")


def test_a_hub_name_without_network_is_one_sentence():
    with pytest.raises(RecipeError, match="nobody/nothing is neither a file here nor a data set"):
        load_source(Source(path="nobody/nothing"), "sft")
