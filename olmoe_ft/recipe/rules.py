"""Rules between the fields of a recipe, over plain values, which need not be valid one by one.

So a recipe with a wrong type in one section still gets all its other mistakes reported at once.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from olmoe_ft.recipe.training_rules import broken_training
from olmoe_ft.recipe.wording import Problem, shown
from olmoe_ft.stages import STAGES

NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*")
POINT = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*=[A-Za-z0-9._+=,-]*")  # what differs, e.g. lr=1e-05,lbc=0.01
LONGEST_NAME = 255  # of a folder, on common file systems
PROJECT = re.compile(r"[^/\\#?%:]{1,128}")  # of Weights & Biases
REQUIRED = {
    "model": "give `path`, or `config` and `tokenizer`",
    "data": "give `train`, a list of sources",
    "router": "it has no default; give `load_balancing_coef`, `z_loss_coef` and `train`",
}
STAGE_SECTIONS = ("model", "data", "router", "lora", "training", "evaluation", "tracking")

# Fields of PEFT's configuration that the `lora` section does not take.
REFUSED_ADAPTERS = {
    "use_dora": "DoRA needs the norm of W + BA, which is never built here; remove it",
    "target_modules": "set `attention` and `experts` instead",
    "target_parameters": "set `attention`, `experts` and `router.train` instead",
    "modules_to_save": "set `router.train` instead",
    "bias": "adapters here train no biases of the base; remove it",
}


def broken_rules(values: Mapping[str, Any]) -> Iterator[Problem]:
    """Every broken rule between the fields of a recipe; a null counts as absent."""
    values = _given(values)
    yield from _name(values)
    yield from _project(_section(values, "tracking").get("project"))
    if values.get("stage") == "pipeline":
        if "stages" not in values:
            yield "stages", "is missing; give a list of stages, such as `- extends: sft.yaml`"
        return
    if values.get("stages"):
        yield "stages", "found in a recipe that is not a pipeline; set `stage: pipeline`, or remove it"
    stage = stage_of(values)
    for section, remedy in REQUIRED.items():
        if section not in values and stage is not None:
            yield section, f"this section is missing; {remedy}"
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
    """Whether a text can name a run directory: a folder below runs/, or a point of a sweep in such a folder."""
    if not isinstance(name, str):
        return False
    folder, slash, point = name.partition("/")
    return NAME.fullmatch(folder) is not None and (not slash or POINT.fullmatch(point) is not None)


def _name(values: Mapping[str, Any]) -> Iterator[Problem]:
    name, stage = values.get("name"), stage_of(values)
    if not isinstance(name, str):
        return
    # the run of a pipeline's stage, `<pipeline>/sft`, can be repeated from its own recipe.yaml
    of_pipeline = re.fullmatch(rf"(.+)/{stage}(-[0-9]+)?", name) if stage is not None else None
    if max(map(len, name.split("/"))) > LONGEST_NAME:
        yield "name", f"found {len(name)} characters; it names a folder in runs/; allowed: at most {LONGEST_NAME}"
    elif not is_run_name(of_pipeline[1] if of_pipeline else name):
        allowed = "letters, digits, `.`, `_`, `-`; start with a letter, a digit or `_`"
        yield "name", f'found "{name}"; it names a folder in runs/; allowed: {allowed}'


def _project(project: object) -> Iterator[Problem]:
    if isinstance(project, str) and not PROJECT.fullmatch(project):
        yield "tracking.project", f"found {shown(project)}; allowed: 1 to 128 characters, without / \\ # ? % :"


def _model(model: Mapping[str, Any]) -> Iterator[Problem]:
    if "path" in model and "config" in model:
        remedy = "keep one; if the other comes from a file that you extend, set it to `null`"
        yield "model", f"found both `path` and `config`; {remedy}"
    elif "path" not in model and "config" not in model:
        yield "model", "found neither `path` (a checkpoint) nor `config` (random weights); give one of them"
    attention = model.get("attn_implementation")
    if attention in ("flash_attention_2", "flash_attention_3") and model.get("dtype") == "float32":
        yield (
            "model.attn_implementation",
            f"found {shown(attention)}, which does not support float32; choose sdpa, or bfloat16",
        )
    if "config" in model and "tokenizer" not in model:
        yield "model.tokenizer", "is missing; a `config` comes without a tokenizer, so name one"


def _adapters(values: Mapping[str, Any]) -> Iterator[Problem]:
    lora, adapted_router = _section(values, "lora"), _section(values, "router").get("train") == "lora"
    if "lora" not in values:
        if adapted_router:
            yield "router.train", 'found "lora" without a `lora` section; add one, or choose full or frozen'
        return
    if lora.get("attention") is False and lora.get("experts") is False and not adapted_router:
        yield "lora", "found nothing to adapt; set `attention` or `experts` to true, or `router.train` to lora"
    in_parameters = "experts" if lora.get("experts") is True else "router" if adapted_router else None
    dropout = lora.get("dropout", 0)
    if isinstance(dropout, int | float) and dropout > 0 and in_parameters:
        yield (
            "lora.dropout",
            f"found {dropout}; PEFT has no dropout for adapters on stacked weights ({in_parameters}); set it to 0",
        )
    if lora.get("init_lora_weights") == "orthogonal":
        if in_parameters:
            yield (
                "lora.init_lora_weights",
                f'found "orthogonal", which PEFT has only for plain matrices, not for the {in_parameters}; '
                "set it to true or gaussian",
            )
        elif isinstance(rank := lora.get("r"), int) and rank % 2:
            yield (
                "lora.r",
                f"found {rank}; allowed with init_lora_weights orthogonal: even ranks; choose {rank + 1}, or another "
                "initialisation",
            )


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
        yield "model.quantization", f"{found} without a `lora` section; 4-bit weights cannot be trained, so add one"
    if _section(values, "training").get("precompute_ref_log_probs") is True:
        yield (
            "training.precompute_ref_log_probs",
            "found true with model.quantization; it would use the weights before they are quantized; set it to false",
        )


def _section(values: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    section = values.get(name)
    return _given(section) if isinstance(section, Mapping) else {}


def _given(section: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in section.items() if value is not None}
