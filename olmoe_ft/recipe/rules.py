"""What the fields of a recipe say about each other: rules over plain values, which need not be valid one by one.

So a recipe with a wrong type in one section still hears about all its other mistakes at once.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from olmoe_ft.recipe.training_rules import broken_training
from olmoe_ft.recipe.wording import Problem, shown
from olmoe_ft.stages import STAGES

NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*")
LONGEST_NAME = 255  # of a folder, on the file systems in use
PROJECT = re.compile(r"[^/\\#?%:]{1,128}")  # of Weights & Biases
REQUIRED = {
    "model": "give `path`, or `config` and `tokenizer`",
    "data": "give `train`, a list of sources",
    "router": "it is never defaulted; give `load_balancing_coef`, `z_loss_coef` and `train`",
}
STAGE_SECTIONS = ("model", "data", "router", "lora", "training", "tracking")

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
    yield from _project(_section(values, "tracking").get("project"))
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
    yield from _data(_section(values, "data"), stage)
    if stage is not None:
        yield from broken_training(stage, values)


def stage_of(values: Mapping[str, Any]) -> str | None:
    """What kind of training a recipe is, None for a pipeline or an unknown one."""
    return next((stage for stage in STAGES if stage == values.get("stage")), None)


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
    if len(pipeline) > LONGEST_NAME:
        yield "name", f"found {len(name)} characters; it names a folder in runs/: at most {LONGEST_NAME}"
    elif not is_run_name(pipeline) or (slash and not of_pipeline):
        allowed = "letters, digits, `.`, `_` and `-`, beginning with a letter, digit or `_`"
        yield "name", f'found "{name}"; it names a folder in runs/: {allowed}'


def _project(project: object) -> Iterator[Problem]:
    if isinstance(project, str) and not PROJECT.fullmatch(project):
        yield "tracking.project", f"found {shown(project)}; W&B takes 1 to 128 characters without any of / \\ # ? % :"


def _model(model: Mapping[str, Any]) -> Iterator[Problem]:
    if "path" in model and "config" in model:
        mend = "keep one, or write `null` for the one a file that you extend has set"
        yield "model", f"found both `path` and `config`, which are two starts; {mend}"
    elif "path" not in model and "config" not in model:
        yield "model", "found neither `path` (a checkpoint) nor `config` (random weights); give exactly one of them"
    attention = model.get("attn_implementation")
    if attention in ("flash_attention_2", "flash_attention_3") and model.get("dtype") == "float32":
        yield "model.attn_implementation", f"found {shown(attention)}, which knows no float32; choose sdpa, or bfloat16"
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


def _data(data: Mapping[str, Any], stage: str | None) -> Iterator[Problem]:
    if data.get("train") in ([], ()):
        yield "data.train", "found an empty list; give at least one source"
    if stage is not None:
        yield from STAGES[stage].unread_data(data)


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


def _section(values: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    section = values.get(name)
    return _given(section) if isinstance(section, Mapping) else {}


def _given(section: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in section.items() if value is not None}
