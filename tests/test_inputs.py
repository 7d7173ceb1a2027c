"""The light phase: every file once, and what a stage takes of the run that it goes on from."""

import json
from collections import Counter
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

import olmoe_ft.data.tokenizer
import olmoe_ft.evaluation.wanted
from olmoe_ft.checkpoints.manifest import entries, write_manifest
from olmoe_ft.data.tokenizer import load_tokenizer
from olmoe_ft.inputs import Finished, Inputs, prepare_inputs
from olmoe_ft.model import OlmoeConfig
from olmoe_ft.recipe import Recipe, load_recipe
from olmoe_ft.training.run_directory import RunDirectory

REPOSITORY = Path(__file__).parents[1]
SHORT = (
    "name=pipe",
    "training.max_steps=2",
    "data.train.0.max_rows=64",
    "data.answers.limit=2",
    "tracking.wandb='off'",
)


@pytest.fixture
def pipeline(tmp_path, monkeypatch) -> Recipe:
    for name in ("recipes", "configs", "data"):
        (tmp_path / name).symlink_to(REPOSITORY / name)
    monkeypatch.chdir(tmp_path)
    return load_recipe("tiny/pipeline", SHORT)


def write_finished(stage: Recipe, template: str | None = None) -> None:
    """A run that has finished, with a network of 65 more words and the tokenizer that it was trained with, or one with
    another template; one number stands for its weights."""
    run = RunDirectory(stage)
    run.create()
    run.final.mkdir()
    config = OlmoeConfig.from_json_file("configs/model/olmoe_tiny.json")
    config.vocab_size += 65
    config.save_pretrained(run.final)
    tokenizer = load_tokenizer("data/skills/tokenizer", 512)
    tokenizer.chat_template = template or tokenizer.chat_template
    tokenizer.save_pretrained(run.final)
    save_file({"weight": torch.zeros(1)}, run.final / "model.safetensors")
    write_manifest(run.final)
    summary = {"name": stage.name, "steps": 2, "train_seconds": 1.0, "train_loss": 1.0}
    run.summary.write_text(json.dumps(summary))
    write_manifest(run.path, entries(run.path, ["summary.json"]))


def test_tokenizer_and_questions_are_read_once_a_stage(pipeline, monkeypatch):
    read: Counter[str] = Counter()

    def counted(module, name):
        function = getattr(module, name)

        def call(*args, **kwargs):
            read[name] += 1
            return function(*args, **kwargs)

        monkeypatch.setattr(module, name, call)

    counted(olmoe_ft.data.tokenizer, "load_tokenizer")
    counted(olmoe_ft.evaluation.wanted, "load_questions")
    stages = prepare_inputs(pipeline)
    assert [type(stage) for stage in stages] == [Inputs, Inputs]
    assert read == {"load_tokenizer": 2, "load_questions": 2}
    assert stages[0].at_start() is stages[0] and sum(read.values()) == 4


def test_a_stage_takes_network_and_tokenizer_of_the_run_before_when_it_has_finished(pipeline):
    first, second = prepare_inputs(pipeline)
    assert second.known_start.model.config == first.recipe.model.config  # as that run is to come
    write_finished(first.recipe)
    started = second.at_start()
    assert started.config.vocab_size == second.config.vocab_size + 65
    assert started.train is second.train and started.tokenizer is not second.tokenizer
    assert started.at_start() is started


def test_rows_are_read_again_where_that_run_has_another_tokenizer(pipeline):
    """The template writes one character more in front of each answer, so each row has more tokens."""
    first, second = prepare_inputs(pipeline)
    longer = second.tokenizer.chat_template.replace("{%- generation -%}", "!{%- generation -%}")
    write_finished(first.recipe, longer)
    started = second.at_start()
    assert started.tokenizer.chat_template == longer
    assert started.train.lengths().sum() > second.train.lengths().sum()


def test_of_a_finished_stage_nothing_is_read(pipeline):
    write_finished(pipeline.stages[0])
    first, second = prepare_inputs(pipeline)
    assert isinstance(first, Finished) and first.summary["steps"] == 2
    assert isinstance(second, Inputs) and second.known_start is second.recipe
    assert second.config.vocab_size == OlmoeConfig.from_json_file("configs/model/olmoe_tiny.json").vocab_size + 65
