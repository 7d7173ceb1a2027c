"""YAML that is nested very deep, or grows when it is read, is refused with a sentence."""

import pytest

from olmoe_ft.planning.machine import read_machine
from olmoe_ft.recipe import RecipeError, load_recipe

DEEP = {
    "flow": "name: " + "[" * 5_000 + "]" * 5_000,
    "flow, open": "name: " + "{a: " * 5_000,
    "block": "\n".join(" " * level + "a:" for level in range(5_000)),
    "list": "name: " + "- " * 5_000,
}
LAUGHS = "a: &a [x, x, x, x, x, x, x, x]\n" + "".join(
    f"{name}: &{name} [{', '.join(['*' + before] * 8)}]\n"
    for before, name in zip("abcdefghij", "bcdefghijk", strict=True)
)


@pytest.mark.parametrize("name", DEEP)
def test_nested_thousands_deep(name, tmp_path):
    (tmp_path / "deep.yaml").write_text(DEEP[name])
    with pytest.raises(RecipeError, match=r"deep\.yaml"):
        load_recipe(tmp_path / "deep.yaml")
    with pytest.raises(RecipeError, match=r"deep\.yaml: not a readable configuration"):
        read_machine(str(tmp_path / "deep.yaml"))


def test_an_override_nested_thousands_deep():
    with pytest.raises(RecipeError, match=r"data\.train.*nested too deeply"):
        load_recipe("recipes/tiny/sft.yaml", ["data.train=" + "[" * 5_000 + "]" * 5_000])


def test_a_text_that_grows(tmp_path):
    (tmp_path / "laughs.yaml").write_text(LAUGHS + "distributed_type: *k\n")
    with pytest.raises(RecipeError, match="an alias or a tag"):
        load_recipe(tmp_path / "laughs.yaml")
    with pytest.raises(RecipeError, match="not a readable configuration"):
        read_machine(str(tmp_path / "laughs.yaml"))


def test_a_network_nested_thousands_deep(tmp_path):
    from olmoe_ft.checkpoints.base_model import base_of
    from olmoe_ft.training.model_files import config_values

    for name in ("config.json", "adapter_config.json"):
        (tmp_path / name).write_text('{"a":' * 99_999 + "1" + "}" * 99_999)
    with pytest.raises(RecipeError, match=r"config\.json: no model configuration"):
        config_values(str(tmp_path / "config.json"))
    with pytest.raises(RecipeError, match="adapter_config.json cannot be read"):
        base_of(str(tmp_path))
