"""Columns of numbers that mean names (`ClassLabel`): the names are read, from every place that knows them."""

import json

import pyarrow
import pytest
from datasets import ClassLabel, Dataset, Features, List, Value
from pyarrow import parquet

from olmoe_ft.data import locations
from olmoe_ft.data.class_names import METADATA, names_of_schema
from olmoe_ft.data.locations import read_rows
from olmoe_ft.data.sources import load_source
from olmoe_ft.recipe import RecipeError
from olmoe_ft.recipe.data_section import Data, Source
from olmoe_ft.stages import STAGES

PLACES = ("rows.parquet", "saved", "folder", "on the Hub")


@pytest.fixture
def judged(tmp_path, monkeypatch):
    """`judged(names, labels)` writes judged answers, their labels numbers of `names`, to each of PLACES."""

    def write(names, labels, kind=None):
        label = kind or ClassLabel(names=names)
        features = Features({"prompt": Value("string"), "completion": Value("string"), "label": label})
        columns = {"prompt": ["q"] * len(labels), "completion": ["a"] * len(labels), "label": labels}
        rows = Dataset.from_dict(columns, features=features)
        rows.save_to_disk(str(tmp_path / "saved"))
        rows.to_parquet(str(tmp_path / "rows.parquet"))
        (tmp_path / "folder").mkdir()
        rows.to_parquet(str(tmp_path / "folder/train.parquet"))
        monkeypatch.setattr(locations, "_loaded", lambda *name: rows)
        return {name: "some/dataset" if name == "on the Hub" else str(tmp_path / name) for name in PLACES}

    return write


def loaded(path, **more):
    source = Source(path=path, **more)
    return load_source(source, STAGES["kto"], Data(train=(source,)))[0]["label"]


def test_a_label_is_its_name_and_not_its_number(judged):
    """0 is good here: by its number it would be bad."""
    paths = judged(["good", "bad"], [0, 1, 0])
    named = {name: loaded(path, labels={"good": True, "bad": False}) for name, path in paths.items()}
    assert named == dict.fromkeys(PLACES, [True, False, True])
    for path in paths.values():
        with pytest.raises(RecipeError, match="`label`: found 'good'; allowed: true, false, 1, 0; say below the sou"):
            loaded(path)


@pytest.mark.parametrize(
    ("names", "labels"), [(["true", "false"], [True, False]), (["0", "1"], [False, True]), (["True", "0"], [1, 0])]
)
def test_names_that_are_labels_themselves(judged, names, labels):
    for path in judged(names, [0, 1]).values():
        assert loaded(path) == labels


def test_no_name(judged):
    """-1 is how `datasets` writes that there is none, and so is null."""
    for path in judged(["good", "bad"], [0, -1, None]).values():
        assert [row["label"] for _, row in read_rows(path)] == ["good", None, None]


def test_names_within_lists_and_parts(judged):
    kind = List({"of": ClassLabel(names=["x", "y"]), "text": Value("string")})
    for path in judged([], [[{"of": 1, "text": "t"}], None], kind).values():
        assert [row["label"] for _, row in read_rows(path)] == [[{"of": "y", "text": "t"}], None]


def test_a_file_that_was_written_again_by_another_library(tmp_path):
    """With a smaller type: `datasets` itself then no longer sees the names."""
    rows = Dataset.from_dict({"label": [1]}, features=Features({"label": ClassLabel(names=["good", "bad"])}))
    table = rows.data.table
    narrow = pyarrow.table({"label": table["label"].cast(pyarrow.int8())}, metadata=table.schema.metadata)
    parquet.write_table(narrow, tmp_path / "narrow.parquet")
    assert [row for _, row in read_rows(str(tmp_path / "narrow.parquet"))] == [{"label": "bad"}]


@pytest.mark.parametrize(
    "metadata", [None, {}, *({METADATA: json.dumps(one).encode()} for one in ({}, [], {"info": None}, {"info": {}}))]
)
def test_metadata_without_names(metadata):
    assert names_of_schema(metadata).given_in({"label": 1}) == {"label": 1}


def test_names_of_lists_as_older_files_have_them():
    """A list of one feature; and `Sequence`, whose parts became lists of their own."""
    label = {"names": ["x", "y"], "_type": "ClassLabel"}
    features = {"a": [{"of": label}], "b": {"feature": {"of": label}, "_type": "Sequence"}, "feature": label}
    names = names_of_schema({METADATA: json.dumps({"info": {"features": features}}).encode()})
    row = {"a": [{"of": 0}], "b": {"of": [0, 1]}, "feature": 7, "c": 0}
    assert names.given_in(row) == {"a": [{"of": "x"}], "b": {"of": ["x", "y"]}, "feature": 7, "c": 0}
