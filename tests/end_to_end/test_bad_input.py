"""What a user can do wrong: one sentence with the place and the mend, exit code 2, nothing written, in seconds."""

import gzip
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from support.launches import make_workspace
from support.user_mistakes import (
    DPO,
    HALF,
    HH,
    KTO,
    LONG,
    LORA,
    SFT,
    START,
    TURNS,
    Arguments,
    beside,
    checkpoint,
    data,
    file_at,
    good,
    judged,
    linked_runs,
    messages,
    model,
    pairs,
    plan_with,
    recipe,
    template,
    token_map,
    tokenizer,
)
from tokenizers import Tokenizer

from olmoe_ft.cli import main

# what is done, and what is said of it
CASES: list[tuple[str, Callable[[], Arguments], str]] = [
    # evaluation
    ("no such task", lambda: ["train", SFT, "evaluation.tasks=[skils]"], "skils: there is no such task (did you mean"),
    (
        "no such task file",
        lambda: beside(good(evaluation={"tasks": ["gone.yaml"]})),
        "gone.yaml: there is no such file",
    ),
    (
        "no rows for a task",
        lambda: ["train", SFT, "evaluation.tasks=[number_rows=gone.jsonl]"],
        "number_rows=gone.jsonl: gone.jsonl: there is no such file",
    ),
    ("a task twice", lambda: ["train", SFT, "evaluation.tasks=[skills, skills]"], "skills: found 2 tasks of this name"),
    (
        "no such suite",
        lambda: ["train", SFT, "evaluation.suite=paper"],
        'evaluation.suite: found "paper"; allowed: olmoe',
    ),
    (
        "never",
        lambda: ["train", SFT, "evaluation.every_steps=0"],
        "evaluation.every_steps: found 0; it must be at least 1",
    ),
    ("a misspelt evaluation", lambda: ["train", SFT, "evaluation.task=[skills]"], "did you mean `tasks`"),
    # recipes as files
    ("no such recipe", lambda: ["train", "recipes/none.yaml"], "recipes/none.yaml: there is no such file"),
    ("a folder", lambda: ["train", "recipes"], "recipes: this is a folder; name a YAML file in it"),
    (
        "no such name",
        lambda: ["train", "tiny/stf"],
        "olmoe_ft has no recipe of this name (did you mean `tiny/sft`?)",
    ),
    ("no such copy", lambda: ["recipes", "copy", "tiny/stf"], "tiny/stf: olmoe_ft has no such recipe or configuration"),
    (
        "a copy over a file",
        lambda: ["recipes", "copy", "tiny/sft", "--to", "zero3.json"],
        "the file exists already",
    ),
    ("a shape elsewhere", lambda: ["recipes", "copy", "configs/accelerate/gpu", "--to", "g.yaml"], "keeps its path"),
    ("a deep recipe", lambda: recipe("name: " + "[" * 5000), "bad.yaml: lists or mappings are nested hundreds deep"),
    ("a far parent", lambda: recipe("extends: ../recipes/tiny/sft.yaml\n"), "olmoe_ft, write `extends: tiny/sft`"),
    (
        "no file beside the recipe",
        lambda: beside(good(data={"train": [{"path": "gone.jsonl"}]})),
        "gone.jsonl: there is no such file; check the path (looked for mine/gone.jsonl (beside the recipe) and /",
    ),
    (
        "no network beside the recipe",
        lambda: beside(good(model={"config": "gone.json", "tokenizer": "data/skills/tokenizer"})),
        "there is no such file (looked for mine/gone.json (beside the recipe) and /",
    ),
    ("an empty recipe", lambda: recipe(""), "bad.yaml:1: the file is empty"),
    ("not UTF-8", lambda: recipe("name: é".encode("latin-1")), "bad.yaml:1: not UTF-8 text; save the file as UTF-8"),
    ("a picture", lambda: recipe(b"\x89PNG\r\n\x1a\n\x00\x00"), "bad.yaml:1: not UTF-8 text"),
    ("a list", lambda: recipe("- a\n"), "bad.yaml:1: this is not a recipe"),
    ("a tab", lambda: recipe("model:\n\tpath: x\n"), "bad.yaml:2: found a tab; YAML allows spaces only, so replace it"),
    ("a key twice", lambda: recipe("name: a\nname: b\n"), "bad.yaml:2: found `name` on line 1 and again on line 2"),
    ("an open bracket", lambda: recipe("name: [a\n"), "not valid YAML"),
    ("an alias", lambda: recipe("name: &n a\nstage: *n\n"), "found an alias or a tag; write out the value"),
    ("no stages", lambda: recipe("name: a\nstage: pipeline\n"), "allowed: a list of stages"),
    ("no parent", lambda: recipe("extends: gone.yaml\n"), "bad.yaml:1: extends: gone.yaml: there is no such file"),
    ("its own parent", lambda: recipe("extends: bad.yaml\n"), "the files extend each other in a circle"),
    ("one of two", lambda: ["validate", SFT, "recipes/no.yaml"], "recipes/no.yaml: there is no such file"),
    # keys and values
    ("a section", lambda: recipe(good(trainig={})), "trainig: unknown key (did you mean `training`?)"),
    ("a key", lambda: ["train", SFT, "training.learnig_rate=1"], "did you mean `learning_rate`?"),
    (
        "a key of DPO",
        lambda: ["train", SFT, "training.beta=1"],
        "is a field of DPOConfig (stage dpo), KTOConfig (stage kto) only",
    ),
    ("a text", lambda: ["train", SFT, "training.learning_rate=fast"], 'found "fast"; allowed: a number'),
    ("a name of TRL", lambda: ["train", SFT, "training.lr_scheduler_type=zigzag"], "allowed: linear, cosine"),
    ("near a name", lambda: ["train", SFT, "training.optim=adamw_torch_fusd"], "did you mean `adamw_torch_fused`?"),
    (
        "lost updates",
        lambda: ["train", SFT, "model.dtype=bfloat16", "training.optim=adamw_torch"],
        'training.optim: found "adamw_torch" with model.dtype bfloat16 on this launch (no DeepSpeed)',
    ),
    (
        "planned to be lost",
        lambda: [
            *("plan", SFT, "model.dtype=bfloat16", "training.optim=adafactor"),
            *("--accelerate", "configs/accelerate/gpu.yaml"),
        ],
        "where no float32 copy of the trained weights exists: most updates would round to nothing; remove it",
    ),
    (
        "validated for one GPU",
        lambda: [
            *("validate", recipe(good(training={"optim": "sgd"}, model=HALF))[1]),
            *("--accelerate", "configs/accelerate/gpu.yaml"),
        ],
        'bad.yaml: training.optim: found "sgd" with model.dtype bfloat16 on configs/accelerate/gpu.yaml',
    ),
    ("an unknown loss", lambda: ["train", DPO, "training.loss_type=[sigmiod]"], "did you mean `sigmoid`?"),
    ("a bare no", lambda: ["train", SFT, "training.save_strategy=no"], 'write "no" in quotes'),
    ("no rows a step", lambda: ["train", SFT, "training.per_device_train_batch_size=0"], "it must be at least 1"),
    ("a negative rate", lambda: ["train", SFT, "training.learning_rate=-1"], "found -1; it must be at least 0"),
    (
        "packs of no length",
        lambda: ["train", SFT, "training.packing=true", "training.max_length=null"],
        "which packs rows to this length; give a number",
    ),
    # options that do not go together, and those of other tools
    (
        "no step",
        lambda: ["train", SFT, "training.max_steps=0"],
        "found 0; it must be at least 1; remove it to train for",
    ),
    (
        "half a save",
        lambda: ["train", SFT, "training.save_steps=1.5"],
        "a whole number of steps, or a share of all steps",
    ),
    (
        "a schedule alone",
        lambda: ["train", SFT, "training.lr_scheduler_type=cosine_with_min_lr"],
        "found neither min_lr nor min_lr_rate; cosine_with_min_lr needs one of them",
    ),
    ("a warm-up of nothing", lambda: ["train", SFT, "training.lr_scheduler_type=constant"], "which has no warm-up"),
    ("an optimizer by name", lambda: ["train", SFT, "training.optim=lomo"], "changes weights during the backward pass"),
    (
        "no package",
        lambda: ["train", SFT, "training.optim=grokadamw"],
        "needs the package grokadamw, which is not installed",
    ),
    (
        "nothing to evaluate",
        lambda: ["train", SFT, "training.eval_strategy=steps"],
        "without rows to evaluate; set `data.eval`",
    ),
    (
        "no GPU to copy from",
        lambda: ["train", SFT, "training.activation_offloading=true"],
        "this machine, which has no GPU",
    ),
    (
        "flash without the package",
        lambda: ["train", SFT, "model.dtype=bfloat16", "model.attn_implementation=flash_attention_2"],
        "needs the package flash_attn, which is not installed here",
    ),
    (
        "a reference that cannot move",
        lambda: ["train", DPO, LORA, "training.sync_ref_model=true"],
        "found true with `lora`, where the reference is the policy with its adapters off",
    ),
    ("weights of pairs", lambda: ["train", DPO, "training.use_weighting=true"], "TRL cannot weight sft pair by pair"),
    ("split by chance", lambda: recipe(good(val_set_size=0.1)), "name held-out rows in `data.eval`"),
    ("axolotl's rank", lambda: ["train", SFT, "training.lora_r=8"], "set `lora.r` instead"),
    ("a path out", lambda: ["train", SFT, "name=../x"], "it names a folder in runs/"),
    ("no router", lambda: ["train", SFT, "router=null"], "router: this section is missing; it has no default"),
    ("two starts", lambda: ["train", SFT, "model.path=x"], "found both `path` and `config`"),
    ("dropout on experts", lambda: ["train", SFT, LORA, "lora.dropout=0.1"], "set it to 0"),
    ("four bits alone", lambda: ["train", SFT, "model.quantization=nf4"], "4-bit weights cannot be trained"),
    ("an override", lambda: ["train", SFT, "training.max_steps"], "write section.key=value"),
    ("a name of 300 letters", lambda: ["train", SFT, f"name={'n' * 300}"], "found 300 characters; it names a folder"),
    ("the folder above", lambda: ["train", SFT, "name=.."], "it names a folder in runs/"),
    ("a project with a slash", lambda: ["train", SFT, "tracking.project=a/b"], "allowed: 1 to 128 characters"),
    ("weight above 1", lambda: ["train", SFT, "data.train.0.weight=3"], "`repeat: 2` gives every row twice"),
    # files of rows
    (
        "no file",
        lambda: ["train", SFT, "data.train.0.path=none.jsonl"],
        "none.jsonl: there is no such file; check the path",
    ),
    ("no evaluation file", lambda: ["train", SFT, "data.eval=[{path: e.jsonl}]"], "e.jsonl: there is no such file"),
    (
        "no Hub here",
        lambda: ["train", SFT, "data.train.0.path=no/where"],
        "no/where: there is no such file here and no such dataset",
    ),
    ("an empty file", lambda: data("rows.jsonl", ""), "rows.jsonl: the dataset is empty"),
    (
        "an empty folder",
        lambda: (os.mkdir("d"), data("x", "", "data.train.0.path=d"))[1],
        "d: no dataset can be loaded",
    ),
    ("a text file", lambda: data("rows.txt", "hello"), "rows.txt: this kind of file cannot be read; allowed: .jsonl"),
    ("half a row", lambda: data("rows.jsonl", '{"a": 1}\n{"b"'), "rows.jsonl:1: found a, which is no known format"),
    ("no JSON", lambda: data("rows.jsonl", "hello\n"), "rows.jsonl:1: not valid JSON"),
    ("half an array", lambda: data("rows.json", json.dumps([{"text": "a"}])[:-1]), "not valid JSON"),
    (
        "numbers",
        lambda: data("rows.jsonl", "1\n"),
        "rows.jsonl:1: found 1; allowed: an object with named fields",
    ),
    ("bytes", lambda: data("rows.jsonl", b"\xff\xfe"), "rows.jsonl: not UTF-8 text"),
    ("no gzip", lambda: data("rows.jsonl.gz", b"no"), "rows.jsonl.gz: cannot be read to its end"),
    ("half a gzip", lambda: data("rows.jsonl.gz", gzip.compress(b'{"text": "a"}\n' * 99)[:-9]), "to its end"),
    ("a column twice", lambda: data("rows.csv", "text,text\na,b\n"), "rows.csv: found more than one column named text"),
    (
        "a split of a file",
        lambda: data("rows.jsonl", [{"text": "a"}], "data.train.0.split=test"),
        "rows.jsonl: this is a file, which has no split",
    ),
    (
        "a misspelt column",
        lambda: data("rows.jsonl", [{"text": "a"}], "data.train.0.columns={txt: text}"),
        "no row has txt, which `columns` renames",
    ),
    (
        "two columns to one",
        lambda: data("rows.jsonl", [{"text": "a"}], "data.train.0.columns={a: text, b: text}"),
        "a different new name for each column",
    ),
    ("a ragged table", lambda: data("rows.csv", "text\na,b\n"), "rows.csv:2: found 2 fields where the header names 1"),
    ("no Parquet", lambda: data("rows.parquet", b"PAR1"), "rows.parquet: not a readable Parquet file"),
    ("no questions", lambda: ["train", SFT, "data.answers.path=q.jsonl"], "q.jsonl: there is no such file"),
    (
        "a question without answer",
        lambda: file_at("q.jsonl", ["train", SFT, "data.answers.path=q.jsonl"], '{"prompt": "q"}\n'),
        "q.jsonl:1: `answer` must be the expected text",
    ),
    # rows
    ("unknown keys", lambda: data("rows.jsonl", [{"query": "q"}]), "Rename its keys with `columns`"),
    ("no assistant", lambda: messages(TURNS[0]), "rows.jsonl:1: has no assistant turn"),
    ("no text", lambda: messages(TURNS[0], {"role": "assistant", "content": " "}), "a text that is not empty"),
    (
        "a narrator",
        lambda: messages({"role": "narrator", "content": "x"}),
        "found the role 'narrator'; allowed: system",
    ),
    ("a tool turn", lambda: messages(*TURNS, {"role": "tool", "content": "x"}), "is a tool turn (tool)"),
    ("tools", lambda: messages(*TURNS, tools=[{"name": "f"}]), "has `tools`, which OLMoE's chat format cannot express"),
    (
        "a picture in a turn",
        lambda: messages({"role": "user", "content": [{"type": "image"}]}),
        "a part of type 'image'",
    ),
    ("half a character", lambda: messages(TURNS[0], {"role": "assistant", "content": "\ud800"}), "a lone surrogate"),
    (
        "a pair for SFT",
        lambda: data("rows.jsonl", [{"prompt": "q", "chosen": "a", "rejected": "b"}]),
        "which only stage dpo",
    ),
    (
        "a conversation for DPO",
        lambda: data("rows.jsonl", [{"messages": TURNS}], to=DPO),
        "needs `chosen` and `rejected`",
    ),
    ("a pair without prompt", lambda: pairs(chosen="a", rejected="b"), "has no prompt that ends with a user turn"),
    ("other prompts", lambda: pairs(chosen=HH.format("q", "a"), rejected=HH.format("p", "b")), "has no prompt"),
    (
        "another format",
        lambda: data("rows.jsonl", [{"text": "a"}], "data.train.0.format=alpaca"),
        "`instruction`: found nothing; allowed: a text",
    ),
    ("pictures", lambda: messages(*TURNS, images=["a.jpg"]), "has `images`, which OLMoE's chat format cannot express"),
    ("a judgement", lambda: messages(*TURNS, label=False), "has `label`, a judgement that this stage does not use"),
    (
        "a mark",
        lambda: messages(TURNS[0], {**TURNS[1], "loss": False}),
        "set `data.turn_marks: obey` to obey such marks",
    ),
    ("an unknown mark", lambda: messages(TURNS[0], {**TURNS[1], "toxic": False}), "`ignore: [toxic]` below"),
    ("text and more", lambda: data("rows.jsonl", [{"text": "a", "title": "b"}]), "set the source's `format: text`"),
    ("nearly known", lambda: data("rows.jsonl", [{"question": "q", "answer": "a"}]), "answer: completion}"),
    (
        "no question",
        lambda: data("rows.jsonl", [{"prompt": None, "completion": "a"}]),
        "`prompt`: found nothing; allowed: a text",
    ),
    # judged answers
    (
        "labels for SFT",
        lambda: ["train", SFT, "data.train.0.labels={good: true}"],
        "data.train.0.labels: stage sft reads no `label`; remove it",
    ),
    ("no label", lambda: judged({"thumbs_up": True}), "add   columns: {thumbs_up: label}   below the source's `path`"),
    ("an unknown label", lambda: judged({"label": "maybe"}), "found 'maybe'; allowed: true, false, 1, 0; say below"),
    ("a score", lambda: judged({"label": 0.5}), "write true for scores above a threshold that you choose"),
    ("a pair and a label", lambda: judged({"chosen": "a", "rejected": "b", "label": 1}), "answers need no label, but"),
    (
        "one prompt",
        lambda: judged({"label": True}, {"label": False, "completion": "b"}),
        "all 2 rows have the same prompt; the loss kto estimates its KL term from answers to other prompts",
    ),
    (
        "one row a batch",
        lambda: ["train", KTO, "training.per_device_train_batch_size=1"],
        "give at least 2, or set loss_type to apo_zero_unpaired",
    ),
    (
        "rows out of order",
        lambda: ["train", KTO, "training.train_sampling_strategy=group_by_length"],
        "which stay together only if taken in order",
    ),
    (
        "a metric that is not measured",
        lambda: [
            *judged({"label": True}, {"label": True, "prompt": "r"}),
            "data.eval=[{path: judged.jsonl}]",
            "training.eval_strategy=steps",
            "training.save_strategy=best",
            "training.metric_for_best_model=rewards/margins",
        ],
        "found rewards/margins, but the evaluation has no bad answers; give other rows in data.eval, or another metric",
    ),
    ("no weight", lambda: ["train", KTO, "training.desirable_weight=0"], "found 0; it must be above 0"),
    ("marks for DPO", lambda: ["train", DPO, "data.turn_marks=obey"], "learns only from `chosen` and `rejected`"),
    ("a benchmark", lambda: ["train", SFT, "data.decontaminate_against=[b.jsonl]"], "b.jsonl: there is no such file"),
    (
        "no room for rows",
        lambda: file_at("f", ["train", SFT, "data.train.0.max_rows=8", "data.cache=f"], ""),
        "set data.cache to a folder on a disk with free space",
    ),
    ("all too long", lambda: data("rows.jsonl", [LONG]), "1 of 1 rows have nothing to learn"),
    ("all dropped", lambda: data("rows.jsonl", [LONG], "data.long_prompts=drop"), "all are dropped: 1 too long"),
    ("a weight of nothing", lambda: data("rows.jsonl", [{"text": "a"}], "data.train.0.weight=0.1"), "raise `weight`"),
    # tokenizers and templates
    (
        "no tokenizer",
        lambda: ["train", SFT, "model.tokenizer=nowhere"],
        "nowhere: there is no such folder here and no such tokenizer in the cache",
    ),
    ("half a tokenizer", lambda: tokenizer(lambda f: (f / "tokenizer.json").write_text("{")), "no tokenizer can be"),
    ("pad is EOS", lambda: token_map(pad_token="<|endoftext|>"), "so EOS would never be learned"),
    (
        "an unknown EOS",
        lambda: token_map(eos_token="</s>"),
        "the tokenizer has 513 tokens, but the model",
    ),
    (
        "code of a tokenizer",
        lambda: token_map(auto_map=["own.Own", None]),
        "found auto_map in its tokenizer_config.json",
    ),
    ("a template of gigabytes", lambda: template("{{ 'a' * 10 ** 7 }}"), "chat template writes 10,000,000 characters"),
    ("a broken template", lambda: template("{% if %}{% generation %}"), "its chat template is not valid Jinja (line 1"),
    ("no marks", lambda: template("{{ messages[0].content }}"), "its chat template has no {% generation %} marks"),
    (
        "a refusing template",
        lambda: template("{% generation %}{% endgeneration %}{{ raise_exception('no') }}"),
        "its chat template refuses plain conversations (no)",
    ),
    (
        "a small vocabulary",
        lambda: model(vocab_size=256),
        "the tokenizer has 512 tokens, but the model's vocab_size is 256",
    ),
    # models and checkpoints
    ("no configuration", lambda: ["train", SFT, "model.config=none.json"], "none.json: no model configuration"),
    ("no JSON inside", lambda: file_at("m.json", ["train", SFT, "model.config=m.json"], "{"), "m.json: no model conf"),
    ("a misspelt size", lambda: model(num_expert=4), "`num_expert` is no field of a model configuration (did you mean"),
    (
        "the recipe's own",
        lambda: model(attn_implementation="eager"),
        "`attn_implementation` is no field of a model configuration",
    ),
    ("another kind of model", lambda: model(model_type="llama"), "of another `model_type`"),
    ("heads do not divide", lambda: model(num_attention_heads=3), "model.json: no model configuration"),
    ("more than all experts", lambda: model(num_experts_per_tok=17), "model.json: no model configuration"),
    ("no run", lambda: ["train", DPO, "model.path=runs/none"], "runs/none does not exist; train it first"),
    (
        "an unfinished run",
        lambda: file_at("other/recipe.yaml", ["train", DPO, "model.path=./other"]),
        "has not finished",
    ),
    (
        "no checkpoint",
        lambda: ["train", DPO, "model.path=configs"],
        "holds neither config.json nor adapter_config.json",
    ),
    ("a file", lambda: file_at("m.bin", ["train", DPO, "model.path=./m.bin"]), "m.bin is a file; name the checkpoint"),
    ("another network", lambda: checkpoint({"config.json": '{"model_type": "llama"}'}), "is missing; fetch"),
    ("no weights", lambda: checkpoint({}), "model.safetensors is missing; fetch the checkpoint again"),
    ("a lying header", lambda: checkpoint({"model.safetensors": b"\xff" * 8 + b"{}"}), "its header is too long"),
    ("half of the weights", lambda: checkpoint({"model.safetensors": b"\x10" + bytes(30)}), "not a complete safet"),
    (
        "a gap in the index",
        lambda: checkpoint({"model.safetensors.index.json": '{"weight_map": {"a": "b"}}'}),
        "b is missing",
    ),
    ("an index of nothing", lambda: checkpoint({"model.safetensors.index.json": "[]"}), "no readable index of weight"),
    (
        "half an adapter",
        lambda: checkpoint({"adapter_config.json": "{", "adapter_model.safetensors": b"\x02" + bytes(7) + b"{}"}),
        "its adapter_config.json cannot be read",
    ),
    (
        "a damaged run",
        lambda: file_at("runs/tiny-sft/recipe.yaml", ["train", SFT], "{"),
        "holds files but no recipe.yaml that can be read; move it away",
    ),
    ("nobody to talk to", lambda: ["chat", "runs/x", "--prompt", "x"], "runs/x does not exist"),
    ("nothing to merge", lambda: ["merge", "configs", "--to", "there"], "configs holds neither config.json"),
    (
        "an unknown dtype",
        lambda: ["merge", "configs", "--to", "there", "--dtype", "int8"],
        "--dtype: found int8; allowed: auto, float32, bfloat16",
    ),
    # disk
    ("a folder in the way", lambda: ["merge", "configs", "--to", "data"], "data exists already; name a new folder"),
    (
        "a file above",
        lambda: file_at("f", ["merge", "configs", "--to", "f/there"]),
        "f is a file, so there can be no folder",
    ),
    ("runs is a file", lambda: file_at("runs", ["train", SFT]), "runs is a file, and runs/tiny-sft/ must be a folder"),
    (
        "runs leads nowhere",
        lambda: linked_runs("/nowhere", SFT),
        "runs is a link to /nowhere, which is not there; make it, or remove runs",
    ),
    (
        "somebody's files",
        lambda: file_at("runs/tiny-sft/x", ["train", SFT]),
        "holds files but no recipe.yaml that can be read",
    ),
    ("another run", lambda: file_at("runs/tiny-sft/recipe.yaml", ["train", SFT]), "holds the run of another recipe"),
    (
        "a full disk",
        lambda: linked_runs("/proc/self", SFT),
        "the disk has 0.0 GiB left and the run will write at least",
    ),
    (
        "no disk",
        lambda: linked_runs("/proc/self", "recipes/tiny/sft-lora.yaml", *START),
        "runs/tiny-sft-lora cannot be written",
    ),
    # machines
    ("no machine", lambda: ["plan", SFT, "--accelerate", "none.yaml"], "none.yaml: there is no such file"),
    ("another machine", lambda: plan_with("distributed_type: TPU"), "found distributed_type TPU; allowed: NO"),
    ("no machine inside", lambda: plan_with("- a"), "not a configuration of accelerate"),
    (
        "a number in words",
        lambda: plan_with("distributed_type: MULTI_GPU\nnum_processes: two"),
        "not a readable configuration (invalid literal",
    ),
    (
        "DeepSpeed's in a line",
        lambda: plan_with("distributed_type: DEEPSPEED\ndeepspeed_config: x"),
        "not a readable configuration",
    ),
    (
        "rows cut up",
        lambda: plan_with("distributed_type: MULTI_GPU\nparallelism_config: {parallelism_config_cp_size: 2}"),
        "machine.yaml: found parallelism_config_cp_size 2; allowed: 1, because attention",
    ),
    (
        "another arithmetic",
        lambda: plan_with("distributed_type: 'NO'\nmixed_precision: fp16"),
        "machine.yaml: found mixed_precision fp16, but model.dtype is float32",
    ),
    (
        "validated for a CPU",
        lambda: [
            *("validate", recipe(good(training={"tf32": True}, model=HALF))[1]),
            *("--accelerate", "configs/accelerate/cpu.yaml"),
        ],
        "bad.yaml: training.tf32: found true on configs/accelerate/cpu.yaml, which has no GPU",
    ),
    (
        "no processes",
        lambda: plan_with("distributed_type: MULTI_CPU\nnum_processes: 0"),
        "found num_processes 0; allowed: at least 1",
    ),
    ("nothing of DeepSpeed", lambda: plan_with("distributed_type: DEEPSPEED"), "found no deepspeed_config_file"),
]


def written(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if not path.is_symlink()}


@pytest.fixture(scope="module", autouse=True)
def libraries():
    """Their import takes seconds and is no case's alone; what is said before it, another test says."""
    Tokenizer.from_file("data/skills/tokenizer/tokenizer.json")
    import olmoe_ft.chat
    import olmoe_ft.planning.printed
    import olmoe_ft.run_stage  # noqa: F401


@pytest.mark.parametrize(("make", "said"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_a_mistake_is_one_sentence_and_exit_2(tmp_path, monkeypatch, capsys, make, said):
    monkeypatch.chdir(make_workspace(tmp_path))
    monkeypatch.setattr(sys, "argv", ["olmoe-ft", *make()])
    before = written(tmp_path)
    with pytest.raises(SystemExit) as exit:
        main()
    assert exit.value.code == 2
    error = capsys.readouterr().err
    sentence = error.rstrip().split("\r")[-1].splitlines()[-1]  # behind the progress bars
    assert said in sentence
    assert "Traceback" not in error
    assert written(tmp_path) == before


@pytest.mark.slow
@pytest.mark.parametrize(("make", "said"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_the_command_says_so_within_five_seconds(tmp_path, monkeypatch, make, said):
    """Through the command, with all that it has to import: seconds each, so not among the usual tests."""
    monkeypatch.chdir(make_workspace(tmp_path))
    arguments, before, start = make(), written(tmp_path), time.monotonic()
    done = subprocess.run([sys.executable, "-m", "olmoe_ft", *arguments], capture_output=True, text=True)
    assert time.monotonic() - start < 5
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert said in done.stderr.rstrip().split("\r")[-1].splitlines()[-1]
    assert written(tmp_path) == before


@pytest.mark.parametrize(
    "arguments",
    [
        ["train", SFT, "data.train=[{path: gone.jsonl}]"],
        ["train", SFT, "model.config=gone.json"],
        ["train", "recipes/tiny/sft-lora.yaml", *START, "data.answers.path=gone.jsonl"],
        ["plan", SFT, "--accelerate", "gone.yaml"],
        ["merge", "runs/gone", "--to", "there"],
        ["chat", "runs/gone"],
    ],
)
def test_what_is_gone_is_said_before_torch_is_imported(tmp_path, arguments):
    program = (
        f"import sys; sys.argv = ['olmoe-ft', *{arguments}]\n"
        "from olmoe_ft.cli import main\n"
        "try: main()\n"
        "finally: print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=make_workspace(tmp_path))
    assert (done.returncode, done.stdout) == (2, "False\n")
    assert "gone" in done.stderr.splitlines()[-1]
