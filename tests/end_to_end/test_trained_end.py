"""A tokenizer whose EOS is not the one of config.json: every written model stops at the end that was trained."""

import json
import shutil

import transformers
from support.launches import CONFIGS, SHORT, launch, olmoe_ft

from olmoe_ft.data.tokenizer import load_tokenizer


def test_what_a_run_leaves_stops_at_the_trained_end(workspace):
    """SFT with an adapter, DPO with a fresh one from there, SFT of all weights: two steps each.

    The tokenizer ends a text with token 0, configs/model/olmoe_tiny.json with 511. As transformers' Trainer does it,
    config.json then names 0, and generation_config.json lists it first, before the ends that were there.
    """
    shutil.copytree(workspace / "data/skills/tokenizer", workspace / "other_end")
    file = workspace / "other_end/tokenizer_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"eos_token": "|||IP_ADDRESS|||"}))
    start = {"model": {"config": "configs/model/olmoe_tiny.json", "tokenizer": "other_end", "path": None}}
    stages = [
        {"extends": "recipes/tiny/sft-lora.yaml", **start},
        {"extends": "recipes/tiny/dpo-lora.yaml", "model": {"path": "runs/ends/sft"}},
        {"extends": "recipes/tiny/sft.yaml", **start},
    ]
    recipe = workspace / "ends.yaml"
    recipe.write_text(json.dumps({"name": "ends", "stage": "pipeline", "stages": stages}))
    short = [override for override in SHORT if "max_rows" not in override]
    launch(workspace, CONFIGS["one"], recipe.name, *short, "training.max_steps=2", "data.train.0.max_rows=40")
    for name in ("sft", "dpo"):
        merged = olmoe_ft(workspace, "merge", f"runs/ends/{name}", "--to", f"ends-{name}")
        assert merged.returncode == 0, merged.stderr
    whole = ("runs/ends/sft/base", "ends-sft", "runs/ends/dpo/base", "ends-dpo", "runs/ends/sft-2/final")
    for folder in whole:
        model = transformers.AutoModelForCausalLM.from_pretrained(workspace / folder)
        assert model.config.eos_token_id == 0, folder
        assert model.generation_config.eos_token_id == [0, 511], folder
        assert load_tokenizer(str(workspace / folder), 512).eos_token_id == 0, folder
