"""Folders are read by the readers of files, whatever they are laid out like."""

import json

import pytest
from datasets import Dataset, DatasetDict, Features, Image, List, Value

from olmoe_ft.data.formats import training_example
from olmoe_ft.data.locations import content_hash, read_rows
from olmoe_ft.data.rows import RowError, Unreadable
from olmoe_ft.recipe import RecipeError

ROW = {"prompt": "q", "completion": "a"}


@pytest.fixture
def folder(tmp_path):
    """`folder({"train.jsonl": [rows], "x.csv": text})` writes these files."""

    def make(files, name="set"):
        for file, content in files.items():
            path = tmp_path / name / file
            path.parent.mkdir(parents=True, exist_ok=True)
            lines = "".join(json.dumps(row) + "\n" for row in content) if isinstance(content, list) else content
            path.write_text(lines)
        return str(tmp_path / name)

    return make


def rows(path, **more):
    return [row for _, row in read_rows(path, **more)]


def test_a_table_in_a_folder_is_text_as_it_is_as_a_file(folder):
    path = folder({"train.csv": "prompt,completion\n2,007\nq,NA\n"})
    found = [{"prompt": "2", "completion": "007"}, {"prompt": "q", "completion": "NA"}]
    assert rows(path) == rows(f"{path}/train.csv") == found
    assert next(iter(read_rows(path)))[0].endswith("train.csv:2")


def test_files_may_have_other_columns(folder):
    other = {"messages": [{"role": "user", "content": "q"}], "score": {"a": 1}}
    path = folder({"train-1.jsonl": [ROW, {**ROW, "score": "high"}], "train-2.jsonl": [other]})
    assert rows(path) == [ROW, {**ROW, "score": "high"}, other]


def test_what_save_to_disk_wrote(tmp_path):
    data = Dataset.from_list([ROW, ROW])
    data.save_to_disk(str(tmp_path / "one"))
    DatasetDict({"train": data, "test": data.select([0])}).save_to_disk(str(tmp_path / "several"))
    assert rows(str(tmp_path / "one")) == rows(str(tmp_path / "several")) == [ROW, ROW]
    assert rows(str(tmp_path / "several"), split="test") == [ROW]
    with pytest.raises(RecipeError, match="several: found no split other; allowed: train, test"):
        rows(str(tmp_path / "several"), split="other")


def test_splits_by_name_and_by_the_card(folder):
    path = folder({"train.jsonl": [ROW], "test.jsonl": [ROW, ROW]})
    assert (len(rows(path)), len(rows(path, split="test"))) == (1, 2)
    with pytest.raises(RecipeError, match="found no split dev; allowed: train, test"):
        rows(path, split="dev")
    card = "---\nconfigs:\n- config_name: p\n  data_files: a/*.jsonl\n- config_name: r\n  data_files: b.jsonl\n---\n"
    path = folder({"README.md": card, "a/1.jsonl": [ROW], "a/2.jsonl": [ROW], "b.jsonl": [ROW]}, "card")
    assert (len(rows(path, config="p")), len(rows(path, config="r"))) == (2, 1)
    with pytest.raises(RecipeError, match="Config name is missing"):
        rows(path)


@pytest.mark.parametrize(
    "files", [{"train.jsonl": [ROW], "more.jsonl": [ROW]}, {"a.jsonl": [ROW], "more.csv": "prompt,completion\nq,a\n"}]
)
def test_a_file_that_no_split_takes_is_not_lost(folder, files):
    with pytest.raises(RecipeError, match="more.* belongs to no split, so it would be left out"):
        rows(folder(files))


def test_a_card_that_only_speaks_of_files_lets_none_be_lost(folder):
    with pytest.raises(RecipeError, match="more.jsonl belongs to no split"):
        rows(folder({"README.md": "load_dataset('json', data_files='a')", "train.jsonl": [ROW], "more.jsonl": [ROW]}))


def test_rows_of_another_split_are_not_trained_on(folder):
    """The library's patterns are for small letters: it would take both files for training rows."""
    with pytest.raises(RecipeError, match="Test.jsonl would be read with the training rows"):
        rows(folder({"Train.jsonl": [ROW], "Test.jsonl": [ROW]}))


def test_a_saved_set_has_no_other_splits_or_configurations(tmp_path):
    Dataset.from_list([ROW]).save_to_disk(str(tmp_path / "one"))
    Dataset.from_list([ROW], split="test").save_to_disk(str(tmp_path / "test"))
    assert rows(str(tmp_path / "test")) == rows(str(tmp_path / "test"), split="test") == [ROW]
    for more in ({"split": "test"}, {"config": "x"}, {"revision": "main"}):
        with pytest.raises(
            RecipeError, match="one: (the folder has no splits|written by save_to_disk, which has no config)"
        ):
            rows(str(tmp_path / "one"), **more)


def test_files_beside_the_rows_do_not_matter(folder):
    assert rows(folder({"train.jsonl": [ROW], "README.md": "hello", "notes.txt": "x", ".hidden.jsonl": [ROW]})) == [ROW]


def test_a_folder_of_other_files(folder):
    with pytest.raises(RecipeError, match="notes.txt is not a file of rows; allowed: .jsonl"):
        rows(folder({"notes.txt": "x"}))


@pytest.mark.parametrize(
    "text",
    [json.dumps([ROW, ROW]), json.dumps([ROW, ROW], indent=1), f"\n [\n{json.dumps(ROW)}\n,{json.dumps(ROW)}]\n"],
)
def test_an_array_under_the_name_of_lines(tmp_path, text):
    (tmp_path / "rows.jsonl").write_text(text)
    assert rows(str(tmp_path / "rows.jsonl")) == [ROW, ROW]


def test_not_a_number_in_keys_that_nobody_reads(tmp_path):
    for name, text in (("a.json", '[{"text": "a", "score": NaN}]'), ("a.jsonl", '{"text": "a", "score": NaN}\n')):
        (tmp_path / name).write_text(text)
        assert rows(str(tmp_path / name)) == [{"text": "a", "score": None}]


def test_a_key_that_stands_twice_is_an_error(tmp_path):
    """In a line of its own it is that row's problem, in an array the file's."""
    (tmp_path / "a.json").write_text('[{"text": "a", "text": "b"}]')
    with pytest.raises(RecipeError, match="the key 'text' appears twice"):
        rows(str(tmp_path / "a.json"))
    (tmp_path / "a.jsonl").write_text('{"text": "a", "text": "b"}\n{"text": "c"}\n')
    assert rows(str(tmp_path / "a.jsonl")) == [
        Unreadable("not valid JSON (the key 'text' appears twice)"),
        {"text": "c"},
    ]


def test_the_hash_is_of_the_content(folder, tmp_path):
    one, same = (
        folder({"train-1.jsonl": [ROW], "train-2.jsonl": [ROW]}, "one"),
        folder({"train-1.jsonl": [ROW], "train-2.jsonl": [ROW]}, "two"),
    )
    assert content_hash(one) == content_hash(same)
    assert content_hash(f"{one}/train-1.jsonl") == content_hash(f"{same}/train-1.jsonl")
    (tmp_path / "two/train-1.jsonl").write_text(json.dumps({**ROW, "completion": "b"}) + "\n")
    assert content_hash(one) != content_hash(same)


def test_a_file_that_the_card_names_elsewhere_counts(folder, tmp_path):
    """The card may name files outside the folder: when such a file changes, so does the hash."""
    (tmp_path / "elsewhere.jsonl").write_text(json.dumps(ROW) + "\n")
    path = folder({"README.md": f"---\nconfigs:\n- config_name: p\n  data_files: {tmp_path}/elsewhere.jsonl\n---\n"})
    before = content_hash(path)
    assert rows(path) == [ROW]
    (tmp_path / "elsewhere.jsonl").write_text(json.dumps({**ROW, "completion": "other"}) + "\n")
    assert content_hash(path) != before


def test_pictures_of_a_saved_set_are_known_as_such(tmp_path):
    """They are not opened, which would need the libraries for it; what is stored of them tells what they are."""
    picture = {"bytes": b"\x89PNG", "path": None}
    features = Features({"prompt": Value("string"), "completion": Value("string"), "shot": List(Image())})
    Dataset.from_list([{**ROW, "shot": [picture]}], features=features).save_to_disk(str(tmp_path / "set"))
    [row] = rows(str(tmp_path / "set"))
    assert row["shot"] == [picture]
    with pytest.raises(RowError, match="has `shot`, which OLMoE's chat format cannot express"):
        training_example(row)


def test_a_loading_script_does_not_run(folder, tmp_path):
    script = f"open({str(tmp_path / 'trace')!r}, 'w')\n"
    for files in ({"mine.py": script}, {"mine.py": script, "train.jsonl": [ROW]}):
        with pytest.raises(RecipeError, match=r"scripts are no longer supported, but found mine\.py"):
            rows(folder(files, name="mine"))
    assert not (tmp_path / "trace").exists()


def test_a_card_that_grows_or_is_nested_deep_is_a_sentence(folder):
    laughs = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
        f"{name}: &{name} [{', '.join(['*' + before] * 9)}]\n"
        for before, name in zip("abcdefghi", "bcdefghij", strict=True)
    )
    for head, said in (
        (laughs + "configs: *j", "found YAML aliases"),
        ("configs: " + "[" * 5000, "no dataset can"),
    ):
        with pytest.raises(RecipeError, match=said):
            rows(folder({"README.md": f"---\n{head}\n---\nA card.\n", "train.jsonl": [ROW]}))
