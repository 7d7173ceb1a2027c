"""Recipes that are wrong: what is said, where, and that everything is said at once."""

from pathlib import Path

import pytest

from olmoe_ft.recipe import RecipeError, load_recipe
from olmoe_ft.stages import STAGES

LORA = "lora={r: 8, alpha: 16, attention: true, experts: true}"


def messages(path, overrides=()):
    with pytest.raises(RecipeError) as caught:
        load_recipe(path, overrides)
    return caught.value.messages


# One change to a good recipe, and the one message it must give.
TRAPS = [
    ("training.learnig_rate=1", "training.learnig_rate: unknown key (did you mean `learning_rate`?)"),
    ("training.warmup_ratio=0.1", "set `training.warmup_steps` instead"),
    ("training.beta=0.1", "training.beta: is a field of DPOConfig (stage dpo), KTOConfig (stage kto) only"),
    (
        "training.desirable_weight=2",
        "training.desirable_weight: is a field of KTOConfig (stage kto) only; this stage is",
    ),
    ("training.learning_rate=fast", 'training.learning_rate: found "fast"; allowed: a number'),
    ("training.learning_rate=.nan", "training.learning_rate: found NaN; allowed: a number"),
    ("training.max_steps=2.5", "training.max_steps: found 2.5; allowed: a whole number"),
    ("training.max_steps=true", "training.max_steps: found true; allowed: a whole number"),
    ("training.max_steps='3'", 'training.max_steps: found "3"; allowed: a whole number'),
    ("training.packing='yes'", 'training.packing: found "yes"; allowed: true'),
    ("training.output_dir=x", 'training.output_dir: found "x"; a recipe cannot set this field: the run directory is'),
    ("training.report_to=null", "set `tracking.wandb` instead"),
    ("training.router_aux_loss_coef=0.1", "set `router.load_balancing_coef` instead"),
    ("training.assistant_only_loss=true", "only the assistant's turns are ever learned"),
    ("training=3", "training: found 3; allowed: a section"),
    ("name=a/b", 'name: found "a/b"; it names a folder in runs/'),
    ("name=good/dpo", "it names a folder in runs/"),  # of a pipeline's DPO stage, but this one is SFT
    ("name=..", "it names a folder in runs/"),
    ("name=3", "name: found 3; allowed: a text; put it in quotes"),
    ("stage=rlvr", 'stage: found "rlvr"; allowed: sft, dpo, kto, pipeline'),
    ("stage=[sft]", 'stage: found ["sft"]; allowed: sft, dpo, kto, pipeline'),
    ("stage=null", "stage: is missing; supervised fine-tuning"),
    ("stages=[{name: a, stage: sft}]", "stages: found in a recipe that is not a pipeline; set `stage: pipeline`"),
    ("model=null", "model: this section is missing"),
    ("model={dtype: float32}", "model: found neither `path`"),
    ("model={path: a, config: b, tokenizer: c}", "model: found both `path` and `config`"),
    ("model={config: b}", "model.tokenizer: is missing"),
    ("model.path=''", 'model.path: found ""; allowed: a text that is not empty'),
    ("model.dtype=float16", 'model.dtype: found "float16"; allowed: float32, bfloat16'),
    ("model.attn_implementation=flash", "allowed: eager, sdpa, flash_attention_2, flash_attention_3, flex_attention"),
    ("router=null", "router: this section is missing; it has no default"),
    ("router.z_loss_coef=null", "router.z_loss_coef: is missing; weight of the router z-loss"),
    ("router.z_loss_coef=-1", "router.z_loss_coef: found -1; it must be at least 0"),
    ("router.z_loss_coef=.inf", "router.z_loss_coef: found Infinity; allowed: a finite number"),
    ("router.scope=layers", 'router.scope: found "layers"; allowed: layer, pooled'),
    ("router.train=lora", 'router.train: found "lora" without a `lora` section'),
    ("lora.r=8", "lora.alpha: is missing"),
    ("model.quantization=nf4", 'model.quantization: found "nf4" without a `lora` section'),
    ("data=null", "data: this section is missing"),
    ("data.train=[]", "data.train: found an empty list"),
    ("data.train=a.jsonl", 'data.train: found "a.jsonl"; allowed: a list'),
    ("data.train.0=a.jsonl", 'data.train.0: found "a.jsonl"; allowed: a section'),
    ("data.train.0.wieght=2", "data.train.0.wieght: unknown key (did you mean `weight`?)"),
    ("data.train.0.weight=0", "data.train.0.weight: found 0; it must be greater than 0"),
    ("data.train.0.weight=2", "found 2; it must be at most 1 (`repeat: 2` gives every row twice)"),
    ("data.train.0.repeat=0", "data.train.0.repeat: found 0; it must be at least 1"),
    ("data.train.0.columns=[a]", 'data.train.0.columns: found ["a"]; allowed: a section'),
    ("data.train.0.labels={good: true}", "data.train.0.labels: stage sft reads no `label`; remove it"),
    ("data.train.0.labels=[good]", 'data.train.0.labels: found ["good"]; allowed: a section'),
    ("data.train.0.labels.good=1", "data.train.0.labels.good: found 1; allowed: true, false (without quotes)"),
    ("data.train.0.labels={1: true}", "data.train.0.labels.1: found 1; allowed: a text; put it in quotes"),
    (
        "data.train.0.labels={Good: true, good: false}",
        "allowed: labels that differ in more than capital letters; remove",
    ),
    ("data.train.0.labels={' ': true}", "allowed: labels that are not empty; a row without a label is an error"),
    ("data.max_dropped=2", "data.max_dropped: found 2; it must be at most 1"),
    ("data.long_prompts=cut", "allowed: drop, keep_start, keep_end"),
    ("data.malformed=skip", 'data.malformed: found "skip"; allowed: stop, drop'),
    ("training.truncation_mode=keep_end", "set `data.long_prompts` and `data.long_answers` instead"),
    ("training.dataset_text_field=body", "set `data.train.0.columns` instead"),
    (
        "training.train_sampling_strategy=batch_rebalance",
        "of different sizes that count the same; choose group_by_length",
    ),
    ("training.packing_strategy=wrapped", "wrapped would join rows; choose bfd"),
    ("data.train.0.max_rows=0", "data.train.0.max_rows: found 0; it must be at least 1"),
    ("data.train.0.format=json", "allowed: messages, prompt_completion, alpaca, sharegpt, text, preference"),
    ("data.train.2.weight=1", "data.train.2.weight: found `2`; allowed: 0 to 1, the items of this list"),
    ("data.train.first.weight=1", "found `first`; allowed: 0 to 1, the items of this list"),
    ("data.evl=null", "data.evl: unknown key (did you mean `eval`?)"),
    ("model={}", "model: found neither `path`"),
    ("data.evl=[]", "data.evl: unknown key (did you mean `eval`?)"),
    ("data.answers={path: a, limit: true}", "data.answers.limit: found true; allowed: a whole number"),
    ("tracking.wandb=true", "tracking.wandb: found true; allowed: auto, online, offline, off"),
    ("name.first=x", "name.first: found `first` below 'good', which has no keys; set a key of a section"),
    ("trainin.max_steps=2", "trainin.max_steps: unknown section (did you mean `training`?)"),
    ("extends=other.yaml", "extends: unknown section"),
    ("training.max_steps", "write section.key=value"),
    ("training..max_steps=2", "write section.key=value"),
    ("training.max_steps=[", 'training.max_steps: found "[", which is not valid YAML'),
]


@pytest.mark.parametrize(("override", "fragment"), TRAPS, ids=[override for override, _ in TRAPS])
def test_a_wrong_value_is_named_with_what_is_allowed(good, override, fragment):
    found = messages(good, [override])
    assert any(message.startswith("override: ") and fragment in message for message in found), found


@pytest.mark.parametrize("stage", [name for name, stage in STAGES.items() if not stage.labelled])
def test_labels_of_evaluation_rows_are_refused_where_none_is_read(good, stage):
    source = "{path: x.jsonl, labels: {good: true, bad: false}}"
    found = messages(good, [f"stage={stage}", f"data.eval=[{source}]", "training.eval_strategy=epoch"])
    assert f"override: data.eval.0.labels: stage {stage} reads no `label`; remove it" in found


@pytest.mark.parametrize(
    ("overrides", "fragment"),
    [
        (["lora.experts=false", "lora.attention=false"], "lora: found nothing to adapt"),
        (
            ["lora.dropout=0.1"],
            "lora.dropout: found 0.1; PEFT has no dropout for adapters on stacked weights (experts); set",
        ),
        (["lora.dropout=0.1", "lora.experts=false", "router.train=lora"], "for adapters on stacked weights (router)"),
        (["lora.dropout=1.0", "lora.experts=false"], "lora.dropout: found 1.0; it must be less than 1"),
        (["lora.r=0"], "lora.r: found 0; it must be at least 1"),
        (["lora.alpha=0"], "lora.alpha: found 0; it must be greater than 0"),
        (["lora.attention=1"], "lora.attention: found 1; allowed: true"),
        (["lora.init_lora_weights=3"], "lora.init_lora_weights: found 3; allowed: true, false, gaussian, ort"),
        (["lora.init_lora_weights=pissa"], 'found "pissa"; allowed: true, false, gaussian, orthogonal; PEFT\'s others'),
        (["lora.init_lora_weights=orthogonal"], 'lora.init_lora_weights: found "orthogonal", which PEFT has only for'),
        (
            ["lora.init_lora_weights=orthogonal", "lora.experts=false", "lora.r=3"],
            "lora.r: found 3; allowed with init_lora_weights orthogonal: even ranks; choose 4",
        ),
        (["model.quantization=int3"], 'model.quantization: found "int3"; allowed: nf4'),
        (
            ["model.quantization=nf4", "stage=dpo", "training.precompute_ref_log_probs=true"],
            "training.precompute_ref_log_probs: found true with model.quantization",
        ),
        (["lora.use_dora=true"], "lora.use_dora: found true; DoRA needs the norm of W + BA"),
        (["lora.target_modules=[q_proj]"], 'lora.target_modules: found ["q_proj"]; set `attention` and `experts`'),
        (["lora.lora_alpha=4"], "lora.lora_alpha: there is no such key; set `lora.alpha` instead"),
        (["lora.alhpa=4"], "lora.alhpa: unknown key (did you mean `alpha`?)"),
    ],
)
def test_adapters(good, overrides, fragment):
    found = messages(good, [LORA, *overrides])
    assert len(found) == 1 and fragment in found[0], found


@pytest.mark.parametrize(
    "overrides",
    [
        ["lora.dropout=0.1", "lora.experts=false"],
        ["lora.init_lora_weights=gaussian"],
        ["lora.init_lora_weights=orthogonal", "lora.experts=false"],
    ],
)
def test_adapters_that_are_right(good, overrides):
    assert load_recipe(good, [LORA, *overrides]).lora is not None


def test_all_mistakes_at_once_in_the_order_of_the_file(write):
    path = write(
        "bad.yaml",
        "name: a b\n"
        "stage: dpo\n"
        "model:\n"
        "  path: x\n"
        "  dtype: fp32\n"
        "router: {load_balancing_coef: '1', z_loss_coef: 0}\n"
        "data:\n"
        "  train:\n"
        "    - path: a.jsonl\n"
        "      weigth: 1\n"
        "training:\n"
        "  packing: true\n"
        "  betta: 0.1\n"
        "trackng: {}\n",
    )
    found = messages(path, ["tracking.wandb=maybe"])
    starts = [": ".join(message.split(": ")[:2]) for message in found]
    assert starts == [
        "override: tracking.wandb",
        "bad.yaml:1: name",
        "bad.yaml:5: model.dtype",
        "bad.yaml:6: router.load_balancing_coef",
        "bad.yaml:6: router.train",
        "bad.yaml:10: data.train.0.weigth",
        "bad.yaml:12: training.packing",
        "bad.yaml:13: training.betta",
        "bad.yaml:14: trackng",
    ]
    assert "did you mean `beta`?" in found[7]
    assert "did you mean `tracking`?" in found[8]


def test_a_mistake_is_found_in_the_file_that_has_it(write, good):
    write("base/parent.yaml", "extends: ../good.yaml\n\nrouter:\n  scope: wide\ntraining: {packin: true}\n")
    child = write("child.yaml", "extends: base/parent.yaml\nname: child\ntraining: {max_steps: x}\n")
    found = messages(child)
    assert [message.split(": ")[0] for message in found] == ["base/parent.yaml:4", "base/parent.yaml:5", "child.yaml:3"]


@pytest.mark.parametrize(
    ("text", "fragment"),
    [
        ("", "file.yaml:1: the file is empty"),
        ("# nothing\n", "file.yaml:1: the file is empty"),
        ("- a\n- b\n", "file.yaml:1: this is not a recipe; write `key: value` on each line"),
        ("name: a\nname: b\n", "file.yaml:2: found `name` on line 1 and again on line 2; remove one"),
        ("name: a\ndata:\n  x: 1\n  y: 2\n  x: 3\n", "file.yaml:5: found `x` on line 3 and again on line 5"),
        ("model:\n\tpath: x\n", "file.yaml:2: found a tab; YAML allows spaces only"),
        ("name: a\nmodel: {path: x\nstage: sft\n", "file.yaml:3: not valid YAML"),
        ("name: a\n---\nname: b\n", "file.yaml:2: not valid YAML"),
        ("name: a: b\n", "file.yaml:1: not valid YAML"),
        ("name: !!python/object:os.system x\n", "file.yaml:1: not valid YAML (found an alias or a tag"),
        ("name: &n a\nstage: *n\n", "file.yaml:2: not valid YAML (found an alias or a tag"),
        ("name: a\n1: b\n", "file.yaml:2: found 1 as a key"),
        ("name: a\non: b\n", "file.yaml:2: found on as a key"),
        ("? [a]\n: b\n", "file.yaml:1: found a list or mapping as a key"),
        ("name: a\x07\n", "file.yaml:1: found a character that YAML does not allow"),
        ("name: a\nextends: gone.yaml\n", "file.yaml:2: extends: gone.yaml: there is no such file"),
        ("name: a\nextends: [x.yaml]\n", "file.yaml:2: extends: found ['x.yaml']; give the path of one YAML file"),
        (
            "extends: file.yaml\n",
            "file.yaml:1: extends: the files extend each other in a circle: file.yaml -> file.yaml",
        ),
    ],
)
def test_files_that_are_no_recipe(write, text, fragment):
    [message] = messages(write("file.yaml", text))
    assert message.startswith(fragment)


def test_a_circle_of_two(write):
    write("b.yaml", "name: b\nextends: a.yaml\n")
    [message] = messages(write("a.yaml", "extends: b.yaml\n"))
    assert message.startswith("b.yaml:2: extends:") and "a.yaml -> b.yaml -> a.yaml" in message


def test_files_that_cannot_be_read(write, tmp_path):
    write("here.yaml", "name: a\n")
    Path("latin.yaml").write_bytes("name: a\nstage: é\n".encode("latin-1"))
    [missing], [folder], [latin] = messages("gone.yaml"), messages(tmp_path), messages("latin.yaml")
    assert missing.startswith("gone.yaml: there is no such file") and str(tmp_path) in missing
    assert "is a folder" in folder
    assert latin.startswith("latin.yaml:2: not UTF-8 text")
