"""Mistakes a user can make: each writes its files into the current folder and returns the command's arguments."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

SFT, DPO, KTO = (f"recipes/tiny/{stage}.yaml" for stage in ("sft", "dpo", "kto"))
TURNS = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]
START = ["model.config=configs/model/olmoe_tiny.json", "model.tokenizer=data/skills/tokenizer", "model.path=null"]
HALF = {"config": "configs/model/olmoe_tiny.json", "tokenizer": "data/skills/tokenizer", "dtype": "bfloat16"}
Arguments = list[str]


def recipe(text: str | bytes) -> Arguments:
    Path("bad.yaml").write_bytes(text if isinstance(text, bytes) else text.encode())
    return ["train", "bad.yaml"]


def beside(text: str) -> Arguments:
    """Train a recipe in a folder of its own."""
    return file_at("mine/bad.yaml", ["train", "mine/bad.yaml"], text)


def good(**changes) -> str:
    return json.dumps(
        {
            "name": "good",
            "stage": "sft",
            "model": {"config": "configs/model/olmoe_tiny.json", "tokenizer": "data/skills/tokenizer"},
            "router": {"load_balancing_coef": 0, "z_loss_coef": 0, "train": "full"},
            "data": {"train": [{"path": "data/skills/train.jsonl", "max_rows": 8}]},
        }
        | changes
    )


def data(name: str, content: str | bytes | list, *overrides: str, to: str = SFT) -> Arguments:
    """Train on a file with this content; a list is JSON lines."""
    if isinstance(content, list):
        content = "".join(json.dumps(row) + "\n" for row in content)
    Path(name).write_bytes(content if isinstance(content, bytes) else content.encode())
    start = [] if to == SFT else START
    return ["train", to, *start, f"data.train=[{{path: {name}}}]", "data.answers=null", *overrides]


def messages(*turns: dict, **more) -> Arguments:
    return data("rows.jsonl", [{"messages": list(turns), **more}])


def pairs(**row) -> Arguments:
    return data("pairs.jsonl", [row], to=DPO)


def judged(*rows: dict) -> Arguments:
    return data("judged.jsonl", [{"prompt": "q", "completion": "a"} | row for row in rows], to=KTO)


def tokenizer(change: Callable[[Path], object]) -> Arguments:
    """Train with the tokenizer of `data/skills`, changed."""
    shutil.copytree("data/skills/tokenizer", "tokenizer")
    change(Path("tokenizer"))
    return ["train", SFT, "model.tokenizer=tokenizer", "data.train.0.max_rows=8", "data.answers=null"]


def template(text: str) -> Arguments:
    def write(folder: Path) -> None:
        config = json.loads((folder / "tokenizer_config.json").read_text())
        config.pop("chat_template", None)
        (folder / "tokenizer_config.json").write_text(json.dumps(config))
        (folder / "chat_template.jinja").write_text(text)

    return tokenizer(write)


def token_map(**changes: str) -> Arguments:
    def write(folder: Path) -> None:
        file = folder / "tokenizer_config.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | changes))

    return tokenizer(write)


def model(**changes) -> Arguments:
    """Train from random weights of a configuration with these changes."""
    config = json.loads(Path("configs/model/olmoe_tiny.json").read_text())
    Path("model.json").write_text(json.dumps(config | changes))
    return ["train", SFT, "model.config=model.json", "data.train.0.max_rows=8", "data.answers=null"]


def checkpoint(files: dict[str, str | bytes], *, command: str = "train") -> Arguments:
    """Go on from a folder with the tiny network's configuration and these files."""
    folder = Path("checkpoint")
    shutil.copytree("data/skills/tokenizer", folder)
    config = json.loads(Path("configs/model/olmoe_tiny.json").read_text())
    files = {"config.json": json.dumps(config | {"model_type": "olmoe"})} | files
    for name, content in files.items():
        (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    return [command, DPO, "model.path=checkpoint"] if command == "train" else [command, "checkpoint", "--to", "there"]


def file_at(path: str, arguments: Arguments, content: str = "{}") -> Arguments:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_text(content)
    return arguments


def linked_runs(target: str, recipe: str, *overrides: str) -> Arguments:
    os.symlink(target, "runs")
    return ["train", recipe, *overrides, "data.train.0.max_rows=8", "data.answers=null"]


def plan_with(text: str) -> Arguments:
    Path("machine.yaml").write_text(text)
    return ["plan", SFT, "data.train.0.max_rows=8", "data.answers=null", "--accelerate", "machine.yaml"]


LONG = {"prompt": "word " * 300, "completion": "a"}
HH = "\n\nHuman: {}\n\nAssistant: {}"
LORA = "lora={r: 4, alpha: 8, attention: true, experts: true}"
