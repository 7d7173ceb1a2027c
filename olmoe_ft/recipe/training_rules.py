"""What the `training` section may hold: TRL's fields and their values, less those that the pipeline sets."""

from collections.abc import Iterator, Mapping
from typing import Any

from olmoe_ft.recipe.metrics import broken_metric
from olmoe_ft.recipe.training_fields import (
    CONFIG_NAMES,
    SCALARS,
    Stage,
    accepts_null,
    allowed_scalars,
    fits,
    training_choices,
    training_fields,
)
from olmoe_ft.recipe.wording import Problem, nearest, shown

ASSISTANT_ONLY = "training is always on the assistant's turns only; remove it"

# Fields of TRL's configurations that follow from other sections or that the pipeline decides.
OWNED = {
    "output_dir": "the run directory is runs/<name>/; set `name` instead",
    "run_name": "set `name` instead",
    "report_to": "set `tracking.wandb` instead",
    "router_aux_loss_coef": "set `router.load_balancing_coef` instead",
    "model_init_kwargs": "set `model.dtype` and `model.attn_implementation` instead",
    "chat_template_path": "the chat template is the tokenizer's; set `model.tokenizer` instead",
    "eos_token": "the end of a turn is the tokenizer's; set `model.tokenizer` instead",
    "pad_token": "the padding token is the tokenizer's; set `model.tokenizer` instead",
    "resume_from_checkpoint": "the same command resumes by itself; remove it",
    "deepspeed": "choose a file of configs/accelerate/ at launch instead",
    "ddp_backend": "it follows from the device; remove it",
    "completion_only_loss": ASSISTANT_ONLY,
    "assistant_only_loss": ASSISTANT_ONLY,
    "truncation_mode": "set `data.long_prompts` and `data.long_answers` instead",
    "dataset_text_field": "set `data.train.0.columns` instead, which renames the keys of rows",
    "dataset_kwargs": "the pipeline prepares the rows; set `data` instead",
    "remove_unused_columns": "the pipeline decides which columns a trainer sees; remove it",
    "disable_tqdm": "the pipeline prints its own progress; remove it",
    "push_to_hub": "runs stay on disk; upload runs/<name>/final when it is good",
    "hub_token": "runs stay on disk and a recipe holds no secrets; remove it",
    "trust_remote_code": "no code is loaded from the Hub; remove it",
    "logging_nan_inf_filter": "a loss that is not finite stops the run and is logged as it is; remove it",
    "use_liger_kernel": "Liger replaces layers of transformers' OLMoE, which is not the network here; remove it",
}

# Names of other tools and of earlier versions, for which the nearest name would be a wrong lead.
ELSEWHERE = {
    "max_prompt_length": "set `data.max_prompt_length` instead",
    "max_completion_length": "set `training.max_length` and `data.long_answers` instead",
    "max_seq_length": "set `max_length` instead",
    "rpo_alpha": "set `loss_type: [sigmoid, sft]` with `loss_weights: [1.0, <rpo_alpha>]` instead",
    "reference_free": "TRL has no DPO without a reference any more; remove it",
    "batch_size": "set `per_device_train_batch_size` and `gradient_accumulation_steps` instead",
    "micro_batch_size": "set `per_device_train_batch_size` instead",
    "train_batch_size": "set `per_device_train_batch_size` and `gradient_accumulation_steps` instead",
    "group_by_length": "set `train_sampling_strategy: group_by_length` instead",
    "logging_dir": "the records are in runs/<name>/metrics.jsonl and where `tracking` says; remove it",
    "evaluation_strategy": "set `eval_strategy` instead",
    "train_on_inputs": "only assistant turns are learned; choose among them with `data.learn`",
    "sample_packing": "set `packing` instead",
    "num_epochs": "set `num_train_epochs` instead",
    "epochs": "set `num_train_epochs` instead",
    "lr": "set `learning_rate` instead",
    "lr_scheduler": "set `lr_scheduler_type` instead",
    "optimizer": "set `optim` instead",
    "warmup_ratio": "set `warmup_steps` instead, where a number below 1 is a share of all steps",
}

# Numbers below which training is no training, or a library fails far from the recipe.
LEAST = {
    "per_device_train_batch_size": 1,
    "per_device_eval_batch_size": 1,
    "gradient_accumulation_steps": 1,
    "dataset_num_proc": 1,
    "max_length": 2,
    "learning_rate": 0,
    "num_train_epochs": 0,
    "warmup_steps": 0,
    "weight_decay": 0,
    "max_grad_norm": 0,
    "beta": 0,
    "seed": 0,
}


def broken_training(stage: Stage, training: Any) -> Iterator[Problem]:
    """Everything that is wrong with a `training` section, which need not be one."""
    fields = training_fields(stage)
    for name, value in without_absent(stage, training).items():
        key = f"training.{name}"
        if name in OWNED:
            yield key, f"found {shown(value)}; the pipeline sets this field: {OWNED[name]}"
        elif name not in fields:
            yield key, _unknown_training(name, stage)
        elif not fits(value, fields[name]):
            allowed = " or ".join(SCALARS[kind] for kind in allowed_scalars(fields[name]))
            yield key, f"found {shown(value)}; {allowed} is needed ({CONFIG_NAMES[stage]}: {fields[name]})"
        else:
            yield from ((key, problem) for problem in _training_value(stage, name, value))
    if isinstance(training, Mapping):
        yield from broken_metric(stage, training)
    if _value(training, "packing") is True and _value(training, "max_length", 1) is None:
        yield "training.max_length", "found null beside training.packing; rows are packed to a length: give one"


def _training_value(stage: Stage, name: str, value: Any) -> Iterator[str]:
    """What is wrong with a value of the right type."""
    if name == "packing_strategy" and value == "wrapped":
        yield 'found "wrapped", which cuts rows and runs them together unseparated; choose bfd or bfd_split'
    if name == "train_sampling_strategy" and value == "batch_rebalance":
        yield 'found "batch_rebalance", whose micro-batches differ in size but count alike; choose group_by_length'
    choices = list(training_choices(stage).get(name, ()))
    for one in (value if isinstance(value, list) else [value]) if choices else ():
        if one is False and "no" in choices:
            yield 'found false, as YAML reads a bare no; write "no" in quotes'
        elif one is not None and one not in choices:
            suggestion = nearest(one, choices) if isinstance(one, str) else ""
            yield f"found {shown(one)}{suggestion}; allowed: {', '.join(choices)}"
    if name in LEAST and isinstance(value, int | float) and value < LEAST[name]:
        yield f"found {shown(value)}; it must be at least {LEAST[name]}"


def _value(training: Any, name: str, default: Any = None) -> Any:
    """A value of a `training` section that need not be one."""
    return training.get(name, default) if isinstance(training, Mapping) else default


def without_absent(stage: Stage, training: Any) -> dict[str, Any]:
    """The `training` section without the nulls that only take away what a file below has set.

    A null stays where it is a value of the field (`max_length: null` truncates nothing) or the key is wrong anyway.
    """
    if not isinstance(training, Mapping):
        return {}
    fields = training_fields(stage)
    absent = {name for name in fields if name not in OWNED and not accepts_null(fields[name])}
    return {name: value for name, value in training.items() if value is not None or name not in absent}


def _unknown_training(name: str, stage: Stage) -> str:
    other: Stage = "dpo" if stage == "sft" else "sft"
    if name in training_fields(other):
        return f"is a field of {CONFIG_NAMES[other]} (stage {other}) only; this stage is {stage}"
    if name in ELSEWHERE:
        return f"is no field of TRL's {CONFIG_NAMES[stage]}; {ELSEWHERE[name]}"
    free = [field for field in training_fields(stage) if field not in OWNED]
    return f"unknown key{nearest(name, free)}; allowed are the fields of TRL's {CONFIG_NAMES[stage]}"
