"""Every option that the table calls obeyed changes the run: one after the other, beside the same run without it.

Some act where a CPU process cannot show it; LIBRARY says where each of those is read.
"""

import hashlib
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
import transformers
from support import REPOSITORY
from support.training_cases import Case

from olmoe_ft.recipe.options.table import KINDS
from olmoe_ft.training.trainers import OlmoeTrainer

ROWS = f'data.eval=[{{path: "{REPOSITORY}/data/skills/train.jsonl", max_rows: 8}}]'
EVERY_STEP = ("eval_strategy=steps", "eval_steps=1")
BEST = (*EVERY_STEP, "save_strategy=steps", "save_steps=1", "load_best_model_at_end=true")
ENTROPY = ("metric_for_best_model=entropy",)  # better neither way by itself
WORKER = ("dataloader_num_workers=1",)
USUAL = (
    *("max_steps=3", "gradient_accumulation_steps=1", "optim=adamw_torch", "learning_rate=1e-2"),
    *("lr_scheduler_type=linear", "gradient_checkpointing_kwargs=null", "logging_steps=1"),
)


class Change(NamedTuple):
    """A value of an option, and what else stands in both runs."""

    value: str
    base: tuple[str, ...] = ()
    case: Case = Case()
    train: bool = True
    """Whether the option is seen in training, and not in the trainer that is built."""


DPO, KTO, LORA, LORA_DPO = Case("dpo"), Case("kto"), Case("sft", "lora"), Case("dpo", "lora")
CHANGES = {
    "per_device_train_batch_size": Change("3"),
    "gradient_accumulation_steps": Change("2"),
    "num_train_epochs": Change("0.2", ("max_steps=-1", "num_train_epochs=0.1")),
    "max_steps": Change("2"),
    "learning_rate": Change("1e-3"),
    "lr_scheduler_type": Change("cosine"),
    "lr_scheduler_kwargs": Change("{num_cycles: 1}", ("lr_scheduler_type=cosine",)),
    "warmup_steps": Change("2"),
    "optim": Change("adagrad"),
    "optim_args": Change("momentum=0.9", ("optim=sgd",)),
    "weight_decay": Change("0.5"),
    "adam_beta1": Change("0.5"),
    "adam_beta2": Change("0.5"),
    "adam_epsilon": Change("0.1"),
    "max_grad_norm": Change("0.01", ("optim=sgd",)),
    "label_smoothing_factor": Change("0.3"),
    "neftune_noise_alpha": Change("5"),
    "activation_checkpointing": Change("false", ("gradient_checkpointing=null",), train=False),
    "activation_checkpointing_kwargs": Change("{use_reentrant: true}", ("gradient_checkpointing=true",), train=False),
    "gradient_checkpointing": Change("true", train=False),
    "gradient_checkpointing_kwargs": Change("{use_reentrant: true}", ("gradient_checkpointing=true",), train=False),
    "torch_compile": Change("true", train=False),
    "torch_compile_backend": Change("eager", ("torch_compile=true",), train=False),
    "torch_compile_mode": Change("max-autotune", ("torch_compile=true",), train=False),
    "logging_strategy": Change("epoch"),
    "logging_steps": Change("2"),
    "logging_first_step": Change("true", ("logging_steps=2",)),
    "log_level": Change("info", train=False),
    "include_num_input_tokens_seen": Change("all"),
    "eval_strategy": Change("steps", (ROWS,)),
    "eval_steps": Change("2", (ROWS, *EVERY_STEP)),
    "eval_delay": Change("2", (ROWS, *EVERY_STEP)),
    "eval_on_start": Change("true", (ROWS,)),
    "per_device_eval_batch_size": Change("3", (ROWS,), train=False),
    "save_strategy": Change("steps"),
    "save_steps": Change("1", ("save_strategy=steps", "save_steps=2")),
    "save_total_limit": Change("1", ("save_strategy=steps", "save_steps=1")),
    "load_best_model_at_end": Change("true", (ROWS, *BEST[:-1], "learning_rate=1")),
    "metric_for_best_model": Change("mean_token_accuracy", (ROWS, *BEST)),
    "greater_is_better": Change("true", (ROWS, *BEST, *ENTROPY, "greater_is_better=false")),
    "seed": Change("2"),
    "data_seed": Change("7"),
    "full_determinism": Change("true", train=False),
    "max_length": Change("26", ("data.max_dropped=1",)),
    "shuffle_dataset": Change("true"),
    "packing": Change("true"),
    "eval_packing": Change("true", (ROWS,), train=False),
    "pad_to_multiple_of": Change("64", train=False),
    "train_sampling_strategy": Change("sequential"),
    "dataloader_drop_last": Change("true", ("per_device_train_batch_size=3",), train=False),
    "dataloader_num_workers": Change("1", train=False),
    "dataloader_persistent_workers": Change("true", WORKER, train=False),
    "dataloader_prefetch_factor": Change("4", WORKER, train=False),
    "dataloader_multiprocessing_context": Change("spawn", WORKER, train=False),
    "ddp_bucket_cap_mb": Change("3", train=False),
    "ddp_broadcast_buffers": Change("false", train=False),
    "ddp_static_graph": Change("true", train=False),
    "loss_type": Change("[hinge]", case=DPO),
    "loss_weights": Change("[1.0, 2.0]", ("loss_type=[sigmoid, sft]",), DPO),
    "beta": Change("0.5", case=DPO),
    "label_smoothing": Change("0.2", ("loss_type=[robust]",), DPO),
    "ld_alpha": Change("0.5", case=DPO),
    "f_divergence_type": Change("js_divergence", case=DPO),
    "f_alpha_divergence_coef": Change("0.8", ("f_divergence_type=alpha_divergence",), DPO),
    "use_weighting": Change("true", case=DPO),
    "discopop_tau": Change("0.5", ("loss_type=[discopop]",), DPO),
    "loss_type of KTO": Change("apo_zero_unpaired", case=KTO),
    "beta of KTO": Change("0.5", case=KTO),
    "desirable_weight": Change("1.5", case=KTO),
    "undesirable_weight": Change("1.5", case=KTO),
    "disable_dropout": Change("false", ("lora.dropout=0.5", "lora.experts=false"), LORA_DPO),
    "precompute_ref_log_probs": Change("true", case=DPO, train=False),
    "sync_ref_model": Change("true", ("ref_model_sync_steps=null",), DPO, train=False),
    "ref_model_mixup_alpha": Change("0.1", ("sync_ref_model=true", "ref_model_sync_steps=1"), DPO),
    "ref_model_sync_steps": Change("1", ("sync_ref_model=true",), DPO),
}
LIBRARY = {
    "bf16": "equal to model.dtype, or refused (tests/recipe/test_combinations.py)",
    "tf32": "transformers TrainingArguments.__post_init__, enable_tf32; needs a GPU",
    "activation_offloading": "trl get_act_offloading_ctx_manager around training_step; needs a GPU",
    "torch_empty_cache_steps": "transformers Trainer.training_step, clear_device_cache; nothing to see on a CPU",
    "log_level_replica": "transformers TrainingArguments.get_process_log_level; of processes behind the first",
    "log_on_each_node": "transformers TrainingArguments.get_process_log_level; with several machines",
    "dataset_num_proc": "olmoe_ft.data.tokens, datasets' map; the rows are the same (tests/data/test_cache.py)",
    "dataloader_pin_memory": "transformers Trainer's data loader; of no use on a CPU, where transformers turns it off",
    "ddp_timeout": "olmoe_ft.training.watch, of several processes (tests/end_to_end/test_signals.py)",
    "precompute_ref_batch_size": "trl DPOTrainer._precompute_ref_logps; the values are the same",
}


def records(trainer: OlmoeTrainer) -> list[dict[str, Any]]:
    """What was logged, without times and memory."""
    timed = ("perf/", "train_runtime", "train_s", "eval_runtime", "eval_s")
    history = trainer.state.log_history
    return [{key: value for key, value in record.items() if not key.startswith(timed)} for record in history]


def collated(trainer: OlmoeTrainer, rows: Any) -> list[int]:
    return list(trainer.data_collator([rows[0], rows[1]])["input_ids"].shape)


def built(trainer: OlmoeTrainer) -> dict[str, Any]:
    """What can be seen of a trainer before it trains."""
    loader, rows = trainer.get_train_dataloader(), trainer.train_dataset
    workers = loader.num_workers, loader.persistent_workers, loader.prefetch_factor, loader.multiprocessing_context
    evaluated = trainer.eval_dataset
    return {
        "batches": (len(loader), str(workers), collated(trainer, rows), sorted(rows.column_names)),
        "evaluation": evaluated and (len(evaluated), len(trainer.get_eval_dataloader())),
        "accelerate": (str(trainer.accelerator.ddp_handler), str(trainer.accelerator.state.dynamo_plugin)),
        "checkpointing": (trainer.args.activation_checkpointing, str(trainer.args.activation_checkpointing_kwargs)),
        "callbacks": sorted(type(callback).__name__ for callback in trainer.callback_handler.callbacks),
        "torch": torch.are_deterministic_algorithms_enabled(),
        "log level": transformers.logging.get_verbosity(),
    }


def trained(trainer: OlmoeTrainer) -> dict[str, Any]:
    shutil.rmtree(trainer.args.output_dir, ignore_errors=True)  # of another run in this folder
    trainer.train()
    weights = hashlib.sha256()
    for weight in trainer.model.state_dict().values():
        weights.update(weight.numpy().tobytes())
    folders = sorted(path.name for path in Path(trainer.args.output_dir).glob("checkpoint-*"))
    return {"records": records(trainer), "weights": weights.hexdigest(), "checkpoints": folders}


@pytest.fixture
def look(make_trainer, monkeypatch) -> Callable[..., dict[str, Any]]:
    """What a run with some options does."""
    for variable in ("CUDA_LAUNCH_BLOCKING", "CUBLAS_WORKSPACE_CONFIG", "FLASH_ATTENTION_DETERMINISTIC"):
        monkeypatch.setenv(variable, "")  # full determinism sets these for good

    def run(change: Change, *options: str) -> dict[str, Any]:
        overrides = [one if one.startswith(("data.", "lora.")) else f"training.{one}" for one in options]
        trainer = make_trainer(change.case, *overrides)
        return trained(trainer) if change.train else built(trainer)

    yield run
    torch.use_deterministic_algorithms(False)
    transformers.logging.set_verbosity_warning()


SEEN: dict[tuple[Any, ...], dict[str, Any]] = {}  # runs without the change, which several share


@pytest.mark.parametrize("name", CHANGES)
def test_another_value_gives_another_run(look, name):
    change = CHANGES[name]
    options = (*USUAL, *change.base)
    key = (change.case, change.train, options)
    if key not in SEEN:
        SEEN[key] = look(change, *options)
    assert look(change, *options, f"{name.partition(' ')[0]}={change.value}") != SEEN[key]


@pytest.mark.parametrize(
    "change", [Change(""), Change("", case=DPO), Change("", case=KTO), Change("", train=False)], ids=str
)
def test_the_same_options_give_the_same_run(look, change):
    """Else the test above could not fail."""
    assert look(change, *USUAL) == look(change, *USUAL)


def test_every_option_is_looked_at():
    assert sorted({name.partition(" ")[0] for name in (*CHANGES, *LIBRARY)}) == sorted(KINDS["obeyed"])
