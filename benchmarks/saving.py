"""What it costs that a checkpoint is whole: the same save by transformers alone, and as it is done here.

PYTHONPATH=. python benchmarks/saving.py FOLDER         a network of 110 M weights, all trained; 1.3 GB a checkpoint
"""

import os
import shutil
import statistics
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import yaml

from olmoe_ft.data.mixture import load_mixtures
from olmoe_ft.recipe import load_recipe
from olmoe_ft.training.arguments import training_arguments
from olmoe_ft.training.model_files import ModelFiles
from olmoe_ft.training.run_directory import RunDirectory
from olmoe_ft.training.saving import SavingMixin
from olmoe_ft.training.trainers import build_trainer

REPOSITORY = Path(__file__).parents[1]
SAVES = 13  # the first one warms up
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
    tokenizer = ModelFiles(recipe).tokenizer
    train, _ = load_mixtures(recipe, arguments.max_length, tokenizer)
    trainer = build_trainer(
        recipe, arguments, RECIPE["model"]["path"], folder / "probe", tokenizer, train.rows, None, train
    )
    stock, ours = [], []

    def save(model: object, trial: object) -> None:
        """Both ways, of the same step, each first in turn."""
        step = trainer.state.global_step
        for taken in (stock, ours) if step % 2 else (ours, stock):
            trainer._saved_at = None
            with _timed(taken):
                if taken is ours:
                    SavingMixin._save_checkpoint(trainer, model, trial)
                else:
                    super(SavingMixin, trainer)._save_checkpoint(model, trial)
            shutil.rmtree(trainer.checkpoints.of_step(step))

    trainer._save_checkpoint = save
    trainer.train()
    seconds = [statistics.median(taken[1:]) for taken in (stock, ours)]
    print(f"transformers saves in {seconds[0]:.3f} s, with all that makes a checkpoint whole in {seconds[1]:.3f} s:")
    print(f"{seconds[1] / seconds[0] - 1:+.1%} (medians of {SAVES - 1})")


@contextmanager
def _timed(taken: list[float]) -> Iterator[None]:
    os.sync()  # else what the last one left to write slows this one
    start = time.perf_counter()
    yield
    taken.append(time.perf_counter() - start)


def _write_start(folder: Path) -> None:
    from olmoe_ft.data.tokenizer import load_tokenizer
    from olmoe_ft.model import OlmoeConfig, OlmoeForCausalLM

    sizes = {"hidden_size": 512, "intermediate_size": 512, "num_hidden_layers": 8, "num_attention_heads": 8}
    config = OlmoeConfig(vocab_size=512, num_experts=16, num_experts_per_tok=2, eos_token_id=511, **sizes)
    OlmoeForCausalLM(config).save_pretrained(folder)
    load_tokenizer(str(REPOSITORY / "data/skills/tokenizer"), config.vocab_size).save_pretrained(folder)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
