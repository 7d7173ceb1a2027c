"""What it costs that a checkpoint is whole: seconds of saves, and of the part that this project adds to transformers'.

PYTHONPATH=. python benchmarks/saving.py FOLDER         a network of 110 M weights, all trained; 1.3 GB a checkpoint
"""

import statistics
import sys
import time
from pathlib import Path

import yaml

from olmoe_ft.data.mixture import load_mixtures
from olmoe_ft.recipe import load_recipe
from olmoe_ft.training.batch_rows import BatchRows
from olmoe_ft.training.model_files import model_config, stage_tokenizer
from olmoe_ft.training.run_directory import RunDirectory
from olmoe_ft.training.runtime import training_arguments
from olmoe_ft.training.saving import SavingMixin
from olmoe_ft.training.trainers import build_trainer

REPOSITORY = Path(__file__).parents[1]
SAVES = 6  # the first one warms up
RECIPE = {
    "name": "saving",
    "stage": "sft",
    "model": {"path": "start", "dtype": "float32"},
    "router": {"load_balancing_coef": 0.01, "z_loss_coef": 0.001, "train": "full"},
    "data": {"train": [{"path": str(REPOSITORY / "data/skills/train.jsonl"), "max_rows": 16}]},
    "training": {
        "max_steps": SAVES,
        "save_strategy": "steps",
        "save_steps": 1,
        "save_total_limit": 1,
        "per_device_train_batch_size": 1,
        "max_length": 64,
    },
    "tracking": {"wandb": "off"},
}


def main(folder: Path) -> None:
    folder.mkdir(parents=True)
    _write_start(folder / "start")
    RECIPE["model"]["path"] = str((folder / "start").resolve())
    (folder / "recipe.yaml").write_text(yaml.safe_dump(RECIPE))
    recipe = load_recipe(folder / "recipe.yaml")
    run = RunDirectory(recipe)
    run.path = folder / "run"
    arguments = training_arguments(recipe, run)
    arguments.output_dir = str(folder / "run/checkpoints")
    tokenizer = stage_tokenizer(recipe, model_config(recipe))
    train, _ = load_mixtures(recipe, arguments.max_length, tokenizer)
    trainer = build_trainer(
        recipe, arguments, RECIPE["model"]["path"], folder / "probe", tokenizer, train.rows, None, BatchRows(train)
    )
    whole, added = [], []
    for name, seconds in (("_save_checkpoint", whole), ("_write_manifest", added), ("write_carried", added)):
        _timed(trainer, name, seconds)
    trainer.train()
    (checkpoint,) = trainer.checkpoints.newest_first()
    size = sum(file.stat().st_size for file in checkpoint.rglob("*"))
    parts = [sum(pair) for pair in zip(added[::2], added[1::2], strict=True)]
    shares = [part / (total - part) for part, total in zip(parts, whole, strict=True)][1:]
    saved, ours = statistics.median(whole[1:]), statistics.median(parts[1:])
    print(f"{size / 1e9:.2f} GB a checkpoint, {saved:.2f} s a save; of it checksums, manifest and sums {ours:.3f} s:")
    print(f"{statistics.median(shares):.1%} more than without")


def _timed(trainer: SavingMixin, name: str, seconds: list[float]) -> None:
    method = getattr(trainer, name)

    def timed(*arguments: object) -> None:
        start = time.perf_counter()
        method(*arguments)
        seconds.append(time.perf_counter() - start)

    setattr(trainer, name, timed)


def _write_start(folder: Path) -> None:
    from olmoe_ft.data.tokenizer import load_tokenizer
    from olmoe_ft.model import OlmoeConfig, OlmoeForCausalLM

    sizes = {"hidden_size": 512, "intermediate_size": 512, "num_hidden_layers": 8, "num_attention_heads": 8}
    config = OlmoeConfig(vocab_size=512, num_experts=16, num_experts_per_tok=2, eos_token_id=511, **sizes)
    OlmoeForCausalLM(config).save_pretrained(folder)
    load_tokenizer(str(REPOSITORY / "data/skills/tokenizer"), config.vocab_size).save_pretrained(folder)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
