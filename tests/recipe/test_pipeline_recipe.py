"""Pipelines: what each stage resolves to, and where mistakes in one are found."""

from pathlib import Path

import pytest

from olmoe_ft.recipe import RecipeError, load_recipe

DPO = """\
name: my-dpo
stage: dpo
model: {path: runs/my-sft, dtype: float32}
router: {load_balancing_coef: 0.0, z_loss_coef: 0.0, train: frozen}
data: {train: [{path: pairs.jsonl}]}
training: {beta: 0.1, seed: 1, max_steps: 10}
"""
PIPELINE = """\
name: pipe
stage: pipeline
training: {seed: 5, save_steps: 7}
stages:
  - extends: ../good.yaml
    training: {save_steps: 9}
  - extends: dpo.yaml
"""


@pytest.fixture
def pipeline(good, write):
    write("recipes/dpo.yaml", DPO)
    return write("recipes/pipeline.yaml", PIPELINE)


def messages(path, overrides=()):
    with pytest.raises(RecipeError) as caught:
        load_recipe(path, overrides)
    return caught.value.messages


def test_stages(pipeline):
    """Lowest first: the extended file, the pipeline's sections, the run before, the item's own keys."""
    recipe = load_recipe(pipeline)
    sft, dpo = recipe.stages
    assert (recipe.name, recipe.stage, recipe.run_dir) == ("pipe", "pipeline", Path("runs/pipe"))
    assert (sft.name, sft.stage, sft.run_dir) == ("pipe/sft", "sft", Path("runs/pipe/sft"))
    assert (dpo.name, dpo.stage, dpo.run_dir) == ("pipe/dpo", "dpo", Path("runs/pipe/dpo"))
    assert sft.model.path == "runs/base"
    assert (dpo.model.path, dpo.model.dtype) == ("runs/pipe/sft", "float32")
    assert sft.training == {"learning_rate": 2e-5, "max_length": None, "seed": 5, "save_steps": 9}
    assert dpo.training == {"beta": 0.1, "max_steps": 10, "seed": 5, "save_steps": 7}
    assert dpo.router.train == "frozen"


def test_random_weights_are_for_the_first_stage(pipeline):
    start = ["model.path=null", "model.config=m.json", "model.tokenizer=t", "model.dtype=float32"]
    sft, dpo = load_recipe(pipeline, start).stages
    assert (sft.model.path, sft.model.config, sft.model.tokenizer, sft.model.dtype) == (None, "m.json", "t", "float32")
    assert (dpo.model.path, dpo.model.config, dpo.model.tokenizer) == ("runs/pipe/sft", None, "t")
    whole = ["model={config: m.json, tokenizer: t, dtype: float32}"]
    assert [stage.model for stage in load_recipe(pipeline, whole).stages] == [sft.model, dpo.model]


def test_random_weights_in_the_pipeline_itself(good, write):
    write("sft.yaml", "extends: good.yaml\nmodel: {path: null}\n")
    write("dpo.yaml", DPO)
    stages = "stages: [{extends: sft.yaml}, {extends: dpo.yaml}]\n"
    text = "name: p\nstage: pipeline\nmodel: {config: m.json, tokenizer: t}\n"
    sft, dpo = load_recipe(write("p.yaml", text + stages)).stages
    assert (sft.model.path, sft.model.config) == (None, "m.json")
    assert (dpo.model.path, dpo.model.config) == ("runs/p/sft", None)


def test_stages_of_one_kind_are_numbered(pipeline, write):
    text = f"{PIPELINE}  - extends: dpo.yaml\n  - {{extends: dpo.yaml, model: {{path: elsewhere}}}}\n"
    stages = load_recipe(write("recipes/more.yaml", text)).stages
    assert [stage.name for stage in stages] == ["pipe/sft", "pipe/dpo", "pipe/dpo-2", "pipe/dpo-3"]
    # a stage that names a start of its own keeps it
    assert [stage.model.path for stage in stages] == ["runs/base", "runs/pipe/sft", "runs/pipe/dpo", "elsewhere"]


def test_overrides_reach_all_stages_or_one(pipeline):
    """The command line wins over an item's own `save_steps` too; the name moves every run directory."""
    recipe = load_recipe(
        pipeline,
        ["name=new", "training.save_steps=3", "stages.1.training.max_steps=2", "stages.0.data.train.1.weight=0.5"],
    )
    sft, dpo = recipe.stages
    assert [stage.name for stage in recipe.stages] == ["new/sft", "new/dpo"]
    assert dpo.model.path == "runs/new/sft"
    assert (sft.training["save_steps"], dpo.training["save_steps"]) == (3, 3)
    assert "max_steps" not in sft.training and dpo.training["max_steps"] == 2
    assert sft.data.train[1].weight == 0.5


def test_round_trip(pipeline, write):
    recipe = load_recipe(pipeline)
    assert load_recipe(write("resolved.yaml", recipe.to_yaml())) == recipe
    for stage in recipe.stages:  # a stage's run directory holds its own recipe
        assert load_recipe(write("stage.yaml", stage.to_yaml())) == stage


@pytest.mark.parametrize(
    ("text", "fragment"),
    [
        ("name: p\n", "p.yaml:1: stages: found null; allowed: a list of stages"),
        ("name: p\nstages: []\n", "p.yaml:3: stages: found []; allowed: a list of stages"),
        ("name: p\nstages: [sft.yaml]\n", 'p.yaml:3: stages: found ["sft.yaml"]; allowed: a list of stages'),
        ("name: p\nstages:\n  - extends: gone.yaml\n", "p.yaml:4: extends: gone.yaml: there is no such file"),
        ("name: p\nstages:\n  - extends: p.yaml\n", "p.yaml:4: extends: the files extend each other in a circle"),
        ("name: p\nstages:\n  - {stage: pipeline}\n", 'p.yaml:4: stage: found "pipeline"; allowed in a pipeline: sft'),
        ("name: a/b\nstages: [extends: good.yaml]\n", 'p.yaml:2: name: found "a/b"; it names a folder'),
        ("stages: [extends: good.yaml]\n", "p.yaml:1: name: is missing"),
        ("name: p\nroute: {}\nstages: [extends: good.yaml]\n", "p.yaml:3: route: unknown key (did you mean `router`?)"),
        (
            "name: p\ntraining: {sed: 1}\nstages: [extends: good.yaml, extends: good.yaml]\n",
            "p.yaml:3: training.sed: unknown key (did you mean `seed`?)",
        ),
    ],
)
def test_pipelines_that_are_wrong(good, write, text, fragment):
    """One message each, also where two stages share the mistake. `[a: b]` is a list of one mapping."""
    [message] = messages(write("p.yaml", f"stage: pipeline\n{text}"))
    assert message.startswith(fragment)


def test_mistakes_of_all_stages_at_once(pipeline):
    found = messages(pipeline, ["stages.0.router.scope=x", "stages.1.training.packing=true", "stages.2.lora.r=1"])
    assert [message.split(";")[0] for message in found] == [
        "override: stages.2.lora.r: there is no such stage",
        'override: router.scope: found "x"',
        "override: training.packing: is a field of SFTConfig (stage sft) only",
    ]
