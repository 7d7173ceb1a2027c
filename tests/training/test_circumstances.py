"""What is another than when a checkpoint was written is refused by name, or accepted by it."""

import copy
import json

import pytest
import torch
from safetensors.torch import save_file

from olmoe_ft.checkpoints.base_model import fingerprint
from olmoe_ft.checkpoints.manifest import write_manifest
from olmoe_ft.recipe import RecipeError
from olmoe_ft.training.circumstances import compare, refuse_other_start
from olmoe_ft.training.steps import Steps

STEPS = Steps(per_epoch=10, steps=20, repeated=0, left_out=0)
BEFORE = {
    "data": {"rows": 900, "fingerprint": "a", "sources": []},
    "model": "weights",
    "tokenizer": "tokens",
    "libraries": {"torch": "2.13.0", "trl": "1.2"},
    "processes": 2,
    "engine": "ZeRO-2",
    "rows_a_step": 16,
    "recipe": {},
}


@pytest.fixture
def checkpoint(tmp_path):
    (tmp_path / "checkpoint-6").mkdir()
    (tmp_path / "checkpoint-6/stood_on.json").write_text(json.dumps(BEFORE))
    return tmp_path / "checkpoint-6"


CHANGES = {
    "data": ({"rows": 890, "fingerprint": "b"}, r"other training rows \(900 before, 890 now\) \(--accept data\)"),
    "model": ("others", r"other starting weights \(--accept model\)"),
    "tokenizer": ("other", r"another tokenizer \(--accept tokenizer\)"),
    "libraries": ({"torch": "2.13.0", "trl": "1.3"}, r"trl 1.2 before, 1.3 now \(--accept libraries\)"),
    "processes": (1, r"2 processes before, 1 now \(--accept processes\)"),
}


def test_the_same_is_gone_on_with(checkpoint):
    moved = copy.deepcopy(BEFORE)
    moved["data"]["sources"] = ["elsewhere"]
    assert compare(checkpoint, moved, STEPS, frozenset()) == {}


@pytest.mark.parametrize("name", CHANGES)
def test_another_is_refused_by_name_and_accepted_by_name(checkpoint, name):
    value, said = CHANGES[name]
    now = BEFORE | {name: value}
    with pytest.raises(RecipeError, match=rf"checkpoint-6 was trained on something else: {said}\. .*--fresh"):
        compare(checkpoint, now, STEPS, frozenset(CHANGES) - {name})
    assert list(compare(checkpoint, now, STEPS, frozenset({name}))) == [name]


def test_all_that_differs_is_said_at_once(checkpoint):
    now = BEFORE | {name: value for name, (value, _) in CHANGES.items()}
    with pytest.raises(RecipeError) as error:
        compare(checkpoint, now, STEPS, frozenset({"data"}))
    assert [name for name in CHANGES if f"--accept {name}" in str(error.value)] == [*CHANGES][1:]


def test_rows_a_step_are_never_another(checkpoint):
    now = BEFORE | {"processes": 1, "rows_a_step": 8}
    with pytest.raises(
        RecipeError, match=r"16 rows a step \(2 process\(es\)\), and this launch takes 8 \(1 process\(es\)\): set"
    ):
        compare(checkpoint, now, STEPS, frozenset(CHANGES))


@pytest.mark.parametrize("engine", ["no DeepSpeed", "ZeRO-3"])
def test_an_optimizers_states_are_read_by_the_engine_that_wrote_them(checkpoint, engine):
    now = BEFORE | {"engine": engine}
    with pytest.raises(RecipeError, match=rf"trained with ZeRO-2, and this launch has {engine}: the optimizer's"):
        compare(checkpoint, now, STEPS, frozenset(CHANGES))


@pytest.mark.parametrize("engine", ["ZeRO-2", "ZeRO-3"])
def test_checkpoints_of_versions_that_did_not_know_their_engine_are_continued(checkpoint, engine):
    """They say "no DeepSpeed" beside DeepSpeed's own folder; without that folder it is so."""
    (checkpoint / "stood_on.json").write_text(json.dumps(BEFORE | {"engine": "no DeepSpeed"}))
    with pytest.raises(RecipeError, match=rf"trained with no DeepSpeed, and this launch has {engine}"):
        compare(checkpoint, BEFORE | {"engine": engine}, STEPS, frozenset())
    (checkpoint / "global_step6").mkdir()
    assert compare(checkpoint, BEFORE | {"engine": engine}, STEPS, frozenset()) == {}


def test_a_run_cannot_become_shorter_than_it_is(checkpoint):
    with pytest.raises(
        RecipeError, match=r"the run has taken 6 steps, and the recipe asks for 5; raise training.max_steps"
    ):
        compare(checkpoint, BEFORE, Steps(10, 5, 0, 0), frozenset())
    assert compare(checkpoint, BEFORE, Steps(10, 6, 0, 0), frozenset()) == {}


@pytest.mark.parametrize("start_is", ["model", "adapter"])
def test_a_run_whose_start_was_trained_again_is_not_called_finished(tmp_path, recipe, start_is):
    """As the second stage of a pipeline is not whose first one got more steps."""
    start = tmp_path / "sft"
    later = recipe("model={path: sft}", "name=dpo")

    def train(value: float) -> None:
        start.mkdir(exist_ok=True)
        (start / ("config.json" if start_is == "model" else "adapter_config.json")).write_text("{}")
        name = "model" if start_is == "model" else "adapter_model"
        save_file({"weight": torch.full((2,), value)}, start / f"{name}.safetensors")
        write_manifest(start)

    train(1.0)
    before = fingerprint(str(start))
    refuse_other_start(later, before, frozenset())
    train(2.0)
    with pytest.raises(RecipeError, match="runs/dpo has finished, from other weights than sft has now; .*accept model"):
        refuse_other_start(later, before, frozenset())
    refuse_other_start(later, before, frozenset({"model"}))
    refuse_other_start(later, None, frozenset())  # of a run from before this was noted
    start.rename(tmp_path / "gone")
    refuse_other_start(later, before, frozenset())
