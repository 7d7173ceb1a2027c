"""Ways of training a small network for a step or two, and the recipe of each."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

from support import REPOSITORY

LEARNING_RATE = 1e6
MICRO_BATCHES = 4  # of ROWS rows, or packed rows, or pairs; spread over processes x accumulation steps
ROWS = 2
FILES = {"sft": "train", "dpo": "preferences", "kto": "judgements"}  # of data/skills
SHAPES = {  # name -> engine, processes
    "1 process": ("plain", 1),
    "2 processes": ("plain", 2),
    "4 processes": ("plain", 4),
    "ZeRO-2": ("zero2", 2),
    "ZeRO-3": ("zero3", 2),
}


@dataclass(frozen=True)
class Case:
    """One way of taking the step; `shape` is a key of SHAPES."""

    stage: str = "sft"  # sft, dpo, kto
    form: str = "full"  # full, lora
    layout: str = "padded"  # padded, packed
    checkpointing: str = "none"  # none, reentrant, non_reentrant
    shape: str = "1 process"
    stack: str = "olmoe_ft"  # olmoe_ft, trl, transformers
    balance_over: str = "micro_batch"
    rows: int = ROWS  # of a micro-batch
    micro_batches: int = MICRO_BATCHES
    coefficient: float = 0.5  # of load balancing; the z-loss has a tenth of it. Large, so that an error is seen

    @property
    def name(self) -> str:
        return "-".join(str(value).replace(" ", "_") for value in asdict(self).values())

    @property
    def reference(self) -> "Case":
        """The same step in the plainest way."""
        return replace(self, checkpointing="none", shape="1 process")


def product_of_modes(shapes: Iterable[str] = ("1 process", "2 processes", "ZeRO-2", "ZeRO-3")) -> list[Case]:
    """Every combination that exists: TRL packs no prompts with answers."""
    return [
        Case(stage, form, layout, checkpointing, shape)
        for stage, form, layout, checkpointing, shape in product(
            FILES, ("full", "lora"), ("padded", "packed"), ("none", "reentrant", "non_reentrant"), shapes
        )
        if stage == "sft" or layout == "padded"
    ]


def splits(shapes: Iterable[str] = ("2 processes", "ZeRO-2", "ZeRO-3")) -> list[tuple[Case, Case]]:
    """Micro-batches of 4 rows split over two processes that balance together, and whole on one."""
    wholes = [Case(stage, balance_over="ranks", rows=4, micro_batches=2) for stage in FILES]
    return [(replace(whole, rows=2, micro_batches=4, shape=shape), whole) for whole in wholes for shape in shapes]


def write_start(folder: Path) -> None:
    """A small model with routers that are not balanced, with its tokenizer."""
    if (folder / "start").exists():
        return
    import torch

    from olmoe_ft.data.tokenizer import load_tokenizer
    from olmoe_ft.model import OlmoeConfig, OlmoeForCausalLM

    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = OlmoeConfig(vocab_size=512, num_experts=8, num_experts_per_tok=2, eos_token_id=511, **sizes)
    model = OlmoeForCausalLM(config)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            weight.add_(torch.randn_like(weight) * (0.5 if "mlp.gate" in name else 0.1))
    model.save_pretrained(folder / "start")
    load_tokenizer(str(REPOSITORY / "data/skills/tokenizer"), config.vocab_size).save_pretrained(folder / "start")


def training_of(case: Case) -> dict[str, Any]:
    processes = SHAPES[case.shape][1]
    assert case.micro_batches % processes == 0, case
    return {
        "max_steps": 1,
        "optim": "sgd",
        "learning_rate": LEARNING_RATE,
        "lr_scheduler_type": "constant",
        "weight_decay": 0.0,
        "max_grad_norm": 0.0,
        "per_device_train_batch_size": case.rows,
        "gradient_accumulation_steps": case.micro_batches // processes,
        "gradient_checkpointing": case.checkpointing != "none",
        "gradient_checkpointing_kwargs": {"use_reentrant": case.checkpointing == "reentrant"},
        "max_length": 64,
        "save_strategy": "no",
        "logging_steps": 1,
        "seed": 1,
    }


def recipe_of(case: Case, folder: Path) -> dict[str, Any]:
    recipe = {
        "name": case.name,
        "stage": case.stage,
        "model": {"path": str(folder.resolve() / "start"), "dtype": "float32"},
        "router": {
            "load_balancing_coef": case.coefficient,
            "z_loss_coef": case.coefficient / 10,
            "train": "full",
            "balance_over": case.balance_over,
        },
        "data": {"train": [{"path": str(REPOSITORY / f"data/skills/{FILES[case.stage]}.jsonl"), "max_rows": 64}]},
        "training": training_of(case) | ({"packing": True} if case.layout == "packed" else {}),
        "tracking": {"wandb": "off"},
    }
    if case.form == "lora":  # both factors random, so that both have a gradient
        recipe["lora"] = {"r": 2, "alpha": 4, "attention": True, "experts": True, "init_lora_weights": False}
    return recipe


def without_answers_at_first(trainer: Any) -> None:
    """Give the rows of the first training step no answer."""
    collate, make_loader, seen = trainer.data_collator, trainer.get_train_dataloader, []

    def without(rows: Any) -> Any:
        batch = collate(rows)
        seen.append(batch)
        if len(seen) <= MICRO_BATCHES:
            batch |= {"labels": batch["labels"].fill_(-100), "places": batch["places"][:0]}
        return batch

    def loader() -> Any:
        trainer.data_collator = without
        try:
            return make_loader()
        finally:
            trainer.data_collator = collate

    trainer.get_train_dataloader = loader
