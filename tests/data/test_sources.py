import gzip
import json

import pyarrow
import pytest
from pyarrow import parquet

from olmoe_ft.data.sources import load_source
from olmoe_ft.recipe import RecipeError, Unreachable
from olmoe_ft.recipe.data_section import Data, Source
from olmoe_ft.stages import STAGES

ROWS = [{"prompt": f"q{number}", "completion": f"a{number}"} for number in range(10)]


def write(path, rows):
    text = json.dumps(rows) if path.suffix == ".json" else "".join(json.dumps(row) + "\n" for row in rows)
    if path.suffix == ".gz":
        path.write_bytes(gzip.compress(text.encode()))
    else:
        path.write_text(text)
    return str(path)


def loaded(source, stage="sft", **settings):
    return load_source(source, STAGES[stage], Data(train=(source,), **settings))[0]


def questions(dataset):
    return [row["messages"][0]["content"] for row in dataset]


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.json", "rows.jsonl.gz"])
def test_every_row_is_read_in_order(tmp_path, name):
    source = Source(path=write(tmp_path / name, ROWS))
    assert questions(loaded(source)) == [f"q{number}" for number in range(10)]


def test_columns_and_parquet(tmp_path):
    import pandas

    pandas.DataFrame(ROWS).to_csv(tmp_path / "rows.csv", index=False)
    pandas.DataFrame(ROWS).to_csv(tmp_path / "rows.csv.gz", index=False)
    pandas.DataFrame(ROWS).to_parquet(tmp_path / "rows.parquet")
    for name in ("rows.csv", "rows.csv.gz", "rows.parquet"):
        assert questions(loaded(Source(path=str(tmp_path / name)))) == [f"q{n}" for n in range(10)]


def test_a_text_that_looks_like_a_number_or_nothing_stays_a_text(tmp_path):
    (tmp_path / "rows.csv").write_text('prompt,completion\nq,007\nq,null\nq,NA\nq,"a\nb"\n')
    rows = loaded(Source(path=str(tmp_path / "rows.csv")))
    assert [row["messages"][1]["content"] for row in rows] == ["007", "null", "NA", "a\nb"]


def test_a_folder_is_read_like_a_hub_data_set(tmp_path):
    folder = tmp_path / "set"
    folder.mkdir()
    write(folder / "train.jsonl", ROWS)
    write(folder / "test.jsonl", ROWS[:3])
    assert len(loaded(Source(path=str(folder)))) == 10
    assert len(loaded(Source(path=str(folder), split="test"))) == 3


@pytest.mark.parametrize(
    "text",
    [
        '[{"prompt": "q", "completion": "a"}, {"prompt": "q2", "completion": "b"}]',
        '{"prompt": "q", "completion": "a"}\n{"prompt": "q2", "completion": "b"}\n',
        '{\n "prompt": "q",\n "completion": "a"\n}\n{"prompt": "q2", "completion": "b"}',
        '\ufeff \n[{"prompt": "q", "completion": "a"},\n{"prompt": "q2", "completion": "b"}]\n',
    ],
)
def test_json_as_an_array_or_as_objects(tmp_path, text):
    (tmp_path / "rows.json").write_text(text, encoding="utf-8")
    assert questions(loaded(Source(path=str(tmp_path / "rows.json")))) == ["q", "q2"]


def test_half_a_character_is_refused_in_both_kinds_of_files(tmp_path):
    for name, text in (("a.json", '[{"text": "a\\ud800"}]'), ("a.jsonl", '{"text": "a\\ud800"}\n')):
        (tmp_path / name).write_text(text)
        with pytest.raises(RecipeError, match="has a broken character"):
            loaded(Source(path=str(tmp_path / name)))


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_lines_may_end_as_on_any_system(tmp_path, end):
    (tmp_path / "rows.jsonl").write_bytes("".join(json.dumps(row) + end for row in ROWS).encode())
    assert questions(loaded(Source(path=str(tmp_path / "rows.jsonl")))) == [f"q{number}" for number in range(10)]


def test_keys_are_renamed(tmp_path):
    path = write(tmp_path / "rows.jsonl", [{"query": "q", "response": "a", "id": 3}])
    source = Source(path=path, columns={"query": "prompt", "response": "completion"})
    [row] = loaded(source)
    assert [turn["content"] for turn in row["messages"]] == ["q", "a"]


def test_a_renamed_key_takes_the_place_of_another(tmp_path):
    path = write(tmp_path / "rows.jsonl", [{"query": "q", "prompt": "a formatted q", "completion": "a"}])
    assert questions(loaded(Source(path=path, columns={"query": "prompt"}))) == ["q"]
    assert loaded(Source(path=path, columns={"query": "prompt"}))[0]["unread"] == ["prompt"]  # gave way, and is told
    swapped = Source(path=path, columns={"prompt": "completion", "completion": "prompt"})
    assert questions(loaded(swapped)) == ["a"]
    with pytest.raises(RecipeError, match="no row has quesry, which `columns` renames; allowed: query, prompt, comp"):
        loaded(Source(path=path, columns={"quesry": "prompt"}))


def test_rows_beyond_max_rows_are_not_looked_at(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text('{"text": "a"}\n{"te')
    assert len(loaded(Source(path=str(path), max_rows=1))) == 1


def test_numbers_of_any_size_in_keys_that_nobody_reads(tmp_path):
    path = tmp_path / "rows.json"
    path.write_text('[{"text": "a", "id": 123456789012345678901234567890, "score": 0.5}]')
    assert len(loaded(Source(path=str(path)))) == 1


def test_malformed_rows_are_kept_with_their_problem_where_they_may_be_dropped(tmp_path):
    path = write(tmp_path / "rows.jsonl", [ROWS[0], {"prompt": "q"}, ROWS[1]])
    rows = loaded(Source(path=path), malformed="drop")
    assert [bool(row["messages"]) for row in rows] == [True, False, True]
    assert rows[1]["place"] == ":2" and "no known format" in rows[1]["problem"]
    path = write(tmp_path / "half.jsonl", [ROWS[0], {"\ud800": "half a character"}])
    assert loaded(Source(path=path), malformed="drop")[1]["problem"].startswith("found \\ud800, which is no")


def test_a_changed_file_is_read_again(tmp_path):
    path = tmp_path / "rows.jsonl"
    write(path, ROWS[:2])
    assert len(loaded(Source(path=str(path)))) == 2
    write(path, ROWS[:5])
    assert len(loaded(Source(path=str(path)))) == 5


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("empty.jsonl", "", "empty.jsonl: the dataset is empty"),
        ("broken.jsonl", '{"prompt": "q", "completion": "a"}\n{"prompt": ', "broken.jsonl:2: not valid JSON"),
        ("broken.json", '[{"text": "a"}, {"text"', "broken.json, row 2: not valid JSON"),
        ("latin.json", ('[{"text": "' + "a" * 9000 + 'é"}]').encode("latin-1"), "latin.json: not UTF-8 text"),
        ("twice.csv", "prompt,prompt,completion\nq,q,a\n", "twice.csv: found more than one column named prompt"),
        ("ends.csv", "prompt,completion\nq\n", "ends.csv:2: found 1 fields where the header names 2"),
        ("open.csv", 'prompt,completion\nq,"a\n', "open.csv:1: not valid CSV"),
        ("rows.parquet", b"PAR1", "rows.parquet: not a readable Parquet file"),
        ("deep.jsonl", "[" * 100_000, "deep.jsonl:1: not valid JSON .nested too deeply"),
        ("rows.jsonl", '\n{"prompt": "q"}\n', "rows.jsonl:2: found prompt, which is no known format"),
        ("list.jsonl", "[1]\n", r"list.jsonl:1: found .1.; allowed: an object with named fields"),
        ("rows.txt", "hello", "this kind of file cannot be read"),
        ("binary.jsonl", b"\xff\xfe\x00", "not UTF-8 text"),
        ("rows.jsonl.gz", b"no gzip", "cannot be read to its end"),
        (
            "half.jsonl.gz",
            gzip.compress(b'{"text": "a"}' * 999, mtime=0)[:-9],
            "half.jsonl.gz: cannot be read to its end",
        ),
    ],
)
def test_what_is_wrong_with_a_file_is_one_sentence_with_its_place(tmp_path, name, content, message):
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(RecipeError, match=message):
        loaded(Source(path=str(path)))


@pytest.mark.parametrize(
    ("path", "message"),
    [
        (f"{'x' * 300}.jsonl", "there is no such file"),
        ("data/nothing.jsonl", "there is no such file"),
        ("runs/x/y", "there is no such file"),
        ("tests", "tests: no dataset can be loaded"),
    ],
)
def test_a_path_that_is_no_file(path, message):
    with pytest.raises(RecipeError, match=message):
        loaded(Source(path=path))


@pytest.mark.parametrize("name", ["nobody/nothing", "allenai/tulu-v3.1-mix-preview-4096-OLMoE", "no_owner"])
def test_a_hub_name_without_network_is_one_sentence(name):
    with pytest.raises(Unreachable, match=f"{name}: there is no such file here and no such dataset"):
        loaded(Source(path=name))


def test_a_file_has_no_splits(tmp_path):
    path = write(tmp_path / "rows.jsonl", ROWS)
    for other in ({"split": "test"}, {"config": "small"}, {"revision": "main"}):
        with pytest.raises(RecipeError, match="is a file, which has no split, config or revision"):
            loaded(Source(path=path, **other))


def test_parquet_with_damaged_text_or_a_name_given_twice(tmp_path):
    bytes_as_text = pyarrow.Array.from_buffers(pyarrow.string(), 1, pyarrow.array([b"\xff\xfe"]).buffers())
    parquet.write_table(pyarrow.table({"text": bytes_as_text}), tmp_path / "damaged.parquet")
    texts = pyarrow.array(["a"])
    parquet.write_table(pyarrow.Table.from_arrays([texts, texts], ["text", "text"]), tmp_path / "twice.parquet")
    for name, message in (("damaged", "a text is not UTF-8"), ("twice", "found more than one column named text")):
        with pytest.raises(RecipeError, match=message):
            loaded(Source(path=str(tmp_path / f"{name}.parquet")))


def test_a_folder_with_a_broken_link_is_read(tmp_path):
    write(tmp_path / "train.jsonl", ROWS)
    (tmp_path / "notes").symlink_to("/nowhere")
    assert len(loaded(Source(path=str(tmp_path)))) == 10


def test_a_broken_line_is_a_row_that_cannot_be_read(tmp_path):
    """With its place and reason, and left out like other such rows where the recipe says so."""
    (tmp_path / "rows.jsonl").write_text('{"prompt": "q", "completion": "a"}\n{"prompt": \n' + "[" * 100_000 + "\n")
    (tmp_path / "rows.csv").write_text("prompt,completion\nq,a\nq\n")
    lines = loaded(Source(path=str(tmp_path / "rows.jsonl")), malformed="drop")
    assert [row["problem"] and row["problem"][:14] for row in lines] == [None, "not valid JSON", "not valid JSON"]
    table = loaded(Source(path=str(tmp_path / "rows.csv")), malformed="drop")
    assert [row["problem"] for row in table] == [None, "found 1 fields where the header names 2"]


def test_deep_rows_and_odd_tables_are_one_sentence(tmp_path):
    deep = '{"prompt": "q", "completion": "a", "meta": ' + '{"a": ' * 900 + "1" + "}" * 901 + "\n"
    (tmp_path / "deep.jsonl").write_text(deep)
    [row] = loaded(Source(path=str(tmp_path / "deep.jsonl")), malformed="drop")
    assert row["problem"] in (None, "nested too deeply") or "not valid JSON" in row["problem"]
    far = pyarrow.array([10**9], pyarrow.date32())
    parquet.write_table(pyarrow.table({"text": ["a"], "day": far}), tmp_path / "far.parquet")
    with pytest.raises(RecipeError, match="not a readable Parquet file"):
        loaded(Source(path=str(tmp_path / "far.parquet")))
