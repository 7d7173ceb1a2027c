"""A folder that is not as it was written is found, whatever was done to it."""

import json
import shutil

import pytest

from olmoe_ft.checkpoints.manifest import NAME, damage, refuse_damaged, write_manifest
from olmoe_ft.recipe import RecipeError


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "shards").mkdir()
    (tmp_path / "shards/rank_1.pt").write_bytes(bytes(range(256)) * 40)
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "empty").touch()
    write_manifest(tmp_path)
    assert damage(tmp_path) is None
    return tmp_path


def flip(file, bit=3000):
    content = bytearray(file.read_bytes())
    content[bit // 8] ^= 1 << bit % 8
    file.write_bytes(content)


@pytest.mark.parametrize(
    ("act", "said"),
    [
        (lambda f: flip(f / "shards/rank_1.pt"), "shards/rank_1.pt has changed since it was written"),
        (lambda f: (f / "shards/rank_1.pt").write_bytes(b"x"), "shards/rank_1.pt has 1 bytes instead of 10,240"),
        (lambda f: (f / "shards/rank_1.pt").unlink(), "shards/rank_1.pt is missing"),
        (lambda f: (f / "empty").write_text("x"), "empty has 1 bytes instead of 0"),
        (lambda f: ((f / "empty").unlink(), (f / "empty").mkdir()), "empty is missing"),
        (lambda f: ((f / "empty").unlink(), (f / "empty").symlink_to("nowhere")), "empty is missing"),
        (lambda f: shutil.rmtree(f / "shards"), "shards/rank_1.pt is missing"),
        (lambda f: (f / "shards/rank_2.pt").touch(), "shards/rank_2.pt was not written with it"),
        (lambda f: (f / NAME).unlink(), "manifest.json is missing"),
        (lambda f: (f / NAME).write_text(""), "manifest.json cannot be read"),
        (lambda f: (f / NAME).write_text("[" * 100_000), "manifest.json cannot be read"),
        (lambda f: (f / NAME).write_text('{"format": 1, "files": {}}'), "manifest.json cannot be read"),
        (
            lambda f: (f / NAME).write_text((f / NAME).read_text().replace("1,", "2,", 1)),
            "manifest.json cannot be read",
        ),
        (lambda f: shutil.rmtree(f), "there is no such folder"),
    ],
)
def test_every_damage_is_found(folder, act, said):
    act(folder)
    assert damage(folder) == said


def test_people_may_write_in_the_card(folder):
    (folder / "README.md").write_text("one")
    assert damage(folder) is None
    write_manifest(folder)
    (folder / "README.md").write_text("another")
    assert damage(folder) is None
    (folder / "shards/README.md").write_text("one")
    write_manifest(folder)
    (folder / "shards/README.md").write_text("another")
    assert damage(folder) == "shards/README.md has 7 bytes instead of 3"


def test_a_card_that_an_earlier_version_has_listed_may_be_written_anew(folder):
    listed = json.loads((folder / NAME).read_text())
    listed["files"]["README.md"] = {"bytes": 1, "xxh3_128": "0"}
    (folder / NAME).write_text(json.dumps(listed))
    assert damage(folder) is None


def test_every_flipped_bit_of_a_manifest_is_found(folder):
    """Or means the same: a bit of white space, or of a letter's case in a key that JSON escapes."""
    whole = json.loads((folder / NAME).read_text())
    found = 0
    for bit in range(8 * (folder / NAME).stat().st_size):
        flip(folder / NAME, bit)
        if damage(folder) is None:
            assert json.loads((folder / NAME).read_text()) == whole
        else:
            found += 1
        flip(folder / NAME, bit)
    assert found > 1000 and damage(folder) is None


def test_what_is_no_weight_may_be_added(folder):
    (folder / "evaluation.json").touch()
    assert damage(folder) is None


def test_a_folder_of_another_program_is_not_asked(folder, tmp_path):
    (folder / "config.json").write_text('{"x": 1}')
    with pytest.raises(RecipeError, match=r"is damaged: config.json has 8 bytes instead of 2; restore the file"):
        refuse_damaged(str(folder))
    (folder / NAME).unlink()
    refuse_damaged(str(folder))
