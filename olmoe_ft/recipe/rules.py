"""What the fields of a recipe say about each other: rules over plain values, which need not be valid one by one.

So a recipe with a wrong type in one section still hears about all its other mistakes at once.
"""

import json
import re
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from typing import Any

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

Problem = tuple[str, str]  # dotted key, what is wrong with it

NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*")
REQUIRED = {
    "model": "give `path`, or `config` and `tokenizer`",
    "data": "give `train`, a list of sources",
    "router": "it is never defaulted; give `load_balancing_coef`, `z_loss_coef` and `train`",
}
STAGE_SECTIONS = ("model", "data", "router", "lora", "training", "tracking")
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
    "use_liger_kernel": "Liger replaces layers of transformers' OLMoE, which is not the network here; remove it",
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

# Fields of PEFT's configuration that have no place in the `lora` section.
REFUSED_ADAPTERS = {
    "use_dora": "DoRA needs the norm of W + BA, which here is never built; remove it",
    "target_modules": "set `attention` and `experts` instead",
    "target_parameters": "set `attention`, `experts` and `router.train` instead",
    "modules_to_save": "set `router.train` instead",
    "bias": "adapters here train no biases of the base; remove it",
}


def broken_rules(values: Mapping[str, Any]) -> Iterator[Problem]:
    """Everything that is wrong between the fields of a recipe; a null is as if it were not written."""
    values = _given(values)
    yield from _name(values)
    if values.get("stage") == "pipeline":
        if "stages" not in values:
            yield "stages", "is missing; a pipeline lists its stages"
        return
    if values.get("stages"):
        yield "stages", "only a recipe with `stage: pipeline` has stages; remove them or change `stage`"
    stage = stage_of(values)
    for section, mend in REQUIRED.items():
        if section not in values and stage is not None:
            yield section, f"this section is missing; {mend}"
    if isinstance(values.get("model"), Mapping):
        yield from _model(_section(values, "model"))
    yield from _adapters(values)
    yield from _quantization(values)
    if _section(values, "data").get("train") in ([], ()):
        yield "data.train", "found an empty list; give at least one source"
    if stage is not None:
        yield from _training(stage, values.get("training"))


def stage_of(values: Mapping[str, Any]) -> Stage | None:
    """What kind of training a recipe is, None for a pipeline or an unknown one."""
    return next((stage for stage in CONFIG_NAMES if stage == values.get("stage")), None)


def is_run_name(name: object) -> bool:
    """Whether a text can name a run directory of its own: one folder, no way out of it."""
    return isinstance(name, str) and NAME.fullmatch(name) is not None


def _name(values: Mapping[str, Any]) -> Iterator[Problem]:
    name, stage = values.get("name"), stage_of(values)
    if not isinstance(name, str):
        return
    pipeline, slash, rest = name.partition("/")
    # the run of a pipeline's stage, `<pipeline>/sft`, can be repeated from its own recipe.yaml
    of_pipeline = stage is not None and re.fullmatch(rf"{stage}(-[0-9]+)?", rest)
    if not is_run_name(pipeline) or (slash and not of_pipeline):
        allowed = "letters, digits, `.`, `_` and `-`, beginning with a letter, digit or `_`"
        yield "name", f'found "{name}"; it names a folder in runs/: {allowed}'


def _model(model: Mapping[str, Any]) -> Iterator[Problem]:
    if "path" in model and "config" in model:
        mend = "keep one, or write `null` for the one a file that you extend has set"
        yield "model", f"found both `path` and `config`, which are two starts; {mend}"
    elif "path" not in model and "config" not in model:
        yield "model", "found neither `path` (a checkpoint) nor `config` (random weights); give exactly one of them"
    if "config" in model and "tokenizer" not in model:
        yield "model.tokenizer", "is missing; a `config` has no tokenizer of its own, so name one"


def _adapters(values: Mapping[str, Any]) -> Iterator[Problem]:
    lora, adapted_router = _section(values, "lora"), _section(values, "router").get("train") == "lora"
    if "lora" not in values:
        if adapted_router:
            yield "router.train", 'found "lora" without a `lora` section; add one, or choose full or frozen'
        return
    if lora.get("attention") is False and lora.get("experts") is False and not adapted_router:
        yield "lora", "nothing is adapted; set `attention` or `experts` to true, or `router.train` to lora"
    in_parameters = "experts" if lora.get("experts") is True else "router" if adapted_router else None
    dropout = lora.get("dropout", 0)
    if isinstance(dropout, int | float) and dropout > 0 and in_parameters:
        yield (
            "lora.dropout",
            f"found {dropout}; an adapter on stacked weights ({in_parameters}) multiplies tokens that are sorted by "
            "expert, and PEFT defines no dropout there; set it to 0",
        )
    if lora.get("init_lora_weights") == "orthogonal":
        if in_parameters:
            yield (
                "lora.init_lora_weights",
                f'found "orthogonal", which PEFT has for plain matrices only, not for the {in_parameters}; '
                "set it to true or gaussian",
            )
        elif isinstance(rank := lora.get("r"), int) and rank % 2:
            yield "lora.r", f"found {rank}; the orthogonal initialisation needs an even rank"


def _quantization(values: Mapping[str, Any]) -> Iterator[Problem]:
    quantization = _section(values, "model").get("quantization")
    if quantization is None:
        return
    found = f"found {shown(quantization)}"
    if "lora" not in values:
        yield "model.quantization", f"{found} without a `lora` section; packed weights cannot be trained: add one"
    if _section(values, "training").get("precompute_ref_log_probs") is True:
        yield (
            "training.precompute_ref_log_probs",
            "found true beside model.quantization; they would be those of the weights before packing; set it to false",
        )


def _training(stage: Stage, training: Any) -> Iterator[Problem]:
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
    if training_of(training, "packing") is True and training_of(training, "max_length", 1) is None:
        yield "training.max_length", "found null beside training.packing; rows are packed to a length: give one"


def _training_value(stage: Stage, name: str, value: Any) -> Iterator[str]:
    """What is wrong with a value of the right type."""
    if name == "packing_strategy" and value == "wrapped":
        yield 'found "wrapped", which cuts rows and runs them together unseparated; choose bfd or bfd_split'
    choices = list(training_choices(stage).get(name, ()))
    for one in (value if isinstance(value, list) else [value]) if choices else ():
        if one is False and "no" in choices:
            yield 'found false, as YAML reads a bare no; write "no" in quotes'
        elif one is not None and one not in choices:
            suggestion = nearest(one, choices) if isinstance(one, str) else ""
            yield f"found {shown(one)}{suggestion}; allowed: {', '.join(choices)}"
    if name in LEAST and isinstance(value, int | float) and value < LEAST[name]:
        yield f"found {shown(value)}; it must be at least {LEAST[name]}"


def training_of(training: Any, name: str, default: Any = None) -> Any:
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
    free = [field for field in training_fields(stage) if field not in OWNED]
    return f"unknown key{nearest(name, free)}; allowed are the fields of TRL's {CONFIG_NAMES[stage]}"


def _section(values: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    section = values.get(name)
    return _given(section) if isinstance(section, Mapping) else {}


def _given(section: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in section.items() if value is not None}


def nearest(name: str, known: list[str]) -> str:
    """A question with the known name that looks most like this one, or nothing."""
    matches = get_close_matches(name, known, n=1)
    return f" (did you mean `{matches[0]}`?)" if matches else ""


def shown(value: object) -> str:
    """A value as a message shows it: about as YAML would, and short."""
    text = json.dumps(value, ensure_ascii=False, default=repr)
    return text if len(text) <= 60 else f"{text[:57]}..."
