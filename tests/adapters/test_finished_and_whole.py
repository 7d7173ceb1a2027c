"""Only what has finished and is whole is loaded: by chat, merge, and a stage that starts from a run."""

import pytest
from typer.testing import CliRunner

from olmoe_ft.checkpoints.folders import check_weights, resolve_checkpoint
from olmoe_ft.checkpoints.manifest import write_manifest
from olmoe_ft.cli import app
from olmoe_ft.recipe import RecipeError


@pytest.fixture
def run(tmp_path):
    """A run that was killed when its weights were written, before it had said that it has finished."""
    (tmp_path / "recipe.yaml").touch()
    (tmp_path / "final").mkdir()
    (tmp_path / "final/config.json").write_text("{}")
    (tmp_path / "final/model.safetensors").write_bytes((2).to_bytes(8, "little") + b"{}")
    write_manifest(tmp_path / "final")
    return tmp_path


@pytest.mark.parametrize("named", ["", "final"])
def test_a_run_that_has_not_finished_is_no_model(run, named):
    with pytest.raises(RecipeError, match="that run has not finished; start it again to finish it"):
        resolve_checkpoint(str(run / named))
    (run / "summary.json").touch()
    assert resolve_checkpoint(str(run / named)) == str(run / "final")


@pytest.mark.parametrize("command", [["chat", "RUN", "--prompt", "x"], ["merge", "RUN", "--to", "there"]])
def test_damaged_weights_are_named_before_they_are_loaded(run, command):
    (run / "summary.json").touch()
    (run / "final/model.safetensors").write_bytes((2).to_bytes(8, "little") + b"[]")
    with pytest.raises(
        RecipeError, match=r"final: the folder is damaged: model.safetensors has changed since it was written"
    ):
        check_weights(str(run / "final"))
    result = CliRunner().invoke(app, [part.replace("RUN", str(run)) for part in command])
    assert isinstance(result.exception, RecipeError) and "model.safetensors has changed" in str(result.exception)
