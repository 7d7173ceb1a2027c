"""Small run directories, written by hand, for tests of model cards and of what is sent to the Hub."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from safetensors.numpy import save_file

from olmoe_ft.checkpoints.manifest import write_manifest

HUB_BASE = "allenai/OLMoE-1B-7B-0924"
NETWORK = {"num_hidden_layers": 2, "num_experts": 8, "num_experts_per_tok": 2, "rms_norm_eps": 1e-5, "clip_qkv": None}
SCORE = {
    "task": "gsm8k", "metric": "exact_match/strict-match", "value": 0.5, "stderr": 0.05, "n": 100, "shots": 8,
    "template": None, "clean_value": 0.25, "clean_n": 60,
}  # fmt: skip


def write_json(file: Path, value: Any) -> None:
    file.write_text(json.dumps(value))


def make_run(path: Path, adapter: bool = False, base: str = HUB_BASE, **recipe: Any) -> Path:
    """A finished run of full weights or adapters, from a model on the Hub, on a dataset there and a local file."""
    final = path / "final"
    final.mkdir(parents=True)
    values = {
        "name": path.name,
        "stage": "sft",
        "model": {"path": base, "dtype": "bfloat16"},
        "data": {"train": [{"path": "allenai/some-mixture"}, {"path": "data/mine.jsonl"}]},
        "router": {"load_balancing_coef": 0.01, "z_loss_coef": 0.001, "train": "frozen"},
        **({"lora": {"r": 16, "alpha": 32}} if adapter else {}),
        "training": {"learning_rate": 2e-5, "max_steps": 20},
    }
    (path / "recipe.yaml").write_text(yaml.safe_dump(values | recipe, sort_keys=False))
    launch = {"python": "3.11.7", "libraries": {"torch": "2.13.0"}, "git_revision": "a" * 40 + "-dirty", "processes": 8}
    write_json(path / "run.json", {"launches": [launch | {"device": "cuda:0"}]})
    records = [
        {"step": 10, "loss": 2.0, "loss/task": 1.9, "router/entropy": 2.0, "router/dead_experts": 0, "num_tokens": 500},
        {
            "step": 20,
            "loss": 1.0,
            "loss/task": 0.9,
            "router/entropy": 1.0,
            "router/dead_experts": 3,
            "num_tokens": 1000,
        },
    ]
    (path / "metrics.jsonl").write_text("".join(json.dumps(one) + "\n" for one in records))
    write_json(path / "summary.json", {"name": path.name, "steps": 20, "train_seconds": 90.0, "train_loss": 1.5})
    sources = [
        {"path": "allenai/some-mixture", "rows": 900, "drawn": 900, "tokens": 7000, "supervised_tokens": 3000,
         "truncated_rows": 12, "dropped": {"no answer": 2}, "overlaps": {"openai/gsm8k": {"kept": 4}}},
        {"path": "data/mine.jsonl", "rows": 50, "drawn": 10, "tokens": 200, "supervised_tokens": 100},
    ]  # fmt: skip
    write_json(path / "data_report.json", {"rows": 910, "sources": sources})
    write_json(path / "evaluation.json", {"version": 1, "samples_bytes": 0, "evaluations": [_evaluation(path.name)]})
    write_weights(final, adapter, base)
    (path / "report.html").write_text("<!doctype html><title>report</title>")
    return path


def write_weights(folder: Path, adapter: bool, base: str) -> None:
    """What a run writes into final/, with a manifest."""
    name = "adapter_model" if adapter else "model"
    save_file({"weight": np.zeros((2, 2), dtype=np.float32)}, folder / f"{name}.safetensors", metadata={"format": "pt"})
    if adapter:
        config = {"peft_type": "LORA", "task_type": "CAUSAL_LM", "base_model_name_or_path": base, "r": 16}
        write_json(folder / "adapter_config.json", config)
    else:
        write_json(folder / "config.json", {"model_type": "olmoe", **NETWORK})
    write_json(folder / "tokenizer.json", {"model": {"vocab": {"password": 1234, "token": 5}}})
    write_manifest(folder)


def _evaluation(name: str) -> dict[str, Any]:
    return {
        "model": f"runs/{name}", "step": 20, "when": "after", "seconds": 1.0, "new_tokens": 10,
        "generating": 1.0, "samples": 0,
        "settings": {"tasks": ["gsm8k"], "lm_eval": "0.4.13", "cut_prompts": {}, "short_outputs": {}},
        "scores": [SCORE],
    }  # fmt: skip
