"""Mixtures of small files, tokenized by the tokenizer of `data/skills`."""

from olmoe_ft.data.mixture import Mixture, load_mixtures
from olmoe_ft.data.tokenizer import load_tokenizer
from olmoe_ft.recipe import Recipe

TOKENIZER = load_tokenizer("data/skills/tokenizer", 512)
ROWS = [{"prompt": f"say {number}", "completion": f"it is {number}"} for number in range(10)]
PAIRS = [{"prompt": f"say {n}", "chosen": f"{n} please", "rejected": f"{n}"} for n in range(10)]


def mixture(sources, stage="sft", max_length=None, **settings) -> Mixture:
    """The training rows of `sources`; `settings` are those of `mixtures`."""
    return mixtures(sources, stage, max_length, **settings)[0]


def mixtures(sources, stage="sft", max_length=None, questions=(), seed=1, evaluation=(), training=None, **data):
    recipe = Recipe.model_validate(
        {
            "name": "x",
            "stage": stage,
            "model": {"path": "a/b"},
            "router": {"load_balancing_coef": 0, "z_loss_coef": 0, "train": "full"},
            "data": {"train": sources, "eval": list(evaluation), **data},
            "training": {"seed": seed, **(training or {})},
        }
    )
    return load_mixtures(recipe, max_length, TOKENIZER, questions)
