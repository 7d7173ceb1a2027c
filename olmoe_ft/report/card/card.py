"""The model card of a run: `README.md` beside its weights, by huggingface_hub's `ModelCard`."""

import hashlib
import math
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import EvalResult, ModelCard, ModelCardData

from olmoe_ft.checkpoints.folders import is_adapter
from olmoe_ft.checkpoints.manifest import CARD
from olmoe_ft.evaluation.score import Score
from olmoe_ft.recipe import UserError
from olmoe_ft.report.card import card_sections as sections
from olmoe_ft.report.card.card_usage import usage, with_name
from olmoe_ft.report.card.markdown import Markdown
from olmoe_ft.report.card.origin import Origin, base_on_hub, network_of, origin_of
from olmoe_ft.report.files.evaluated import Measured, limit_of
from olmoe_ft.report.files.run_files import RunFiles
from olmoe_ft.report.page.clean import yaml_of
from olmoe_ft.report.private.private import private_here
from olmoe_ft.stages import STAGES
from olmoe_ft.training.files import write_text

TEMPLATE = Path(__file__).parent / "card.md.jinja"
MARK = re.compile(r"\n*<!-- olmoe_ft card: ([0-9a-f]{16}) -->\s*\Z")
TASK = "text-generation"


def model_card(run: RunFiles, folder: Path | None = None, repository: str | None = None) -> ModelCard:
    """The card of what a run has trained. Its texts hold no local path, key or host name.

    Args:
        folder: what it describes: `final/` of the run, or a folder that the run was merged into.
        repository: the Hub name to load it by, in the examples; None where it has none yet.
    """
    folder = folder or run.path / "final"
    md = Markdown(private_here([run.path]))
    origin, network = origin_of(run.path, run.recipe), network_of(folder, run.recipe)
    versions = [one.settings.get("lm_eval") for one in run.evaluated.used("after")]
    values: dict[str, Any] = {
        "title": md.plain(run.name),
        "summary": _summary(run, folder, origin, network, md),
        "usage": [
            (title, sentence, md.block(code, language))
            for title, sentence, code, language in usage(folder, network, repository)
        ],
        "scores": sections.scores(run, md),
        "with_harness": md.plain(", ".join(dict.fromkeys(str(one) for one in versions if one))),
        "training": sections.training(run, md),
        "hyperparameters": sections.hyperparameters(run, md),
        "recipe": md.block(yaml_of(run.recipe, md.private), "yaml"),
        "data": sections.data(run, md),
        "data_notes": [*sections.data_notes(run, md)],
        "routers": sections.routers(run, network, md),
        "limitations": [*_limitations(run, folder, origin)],
        "license_text": _license(origin, md),
        "versions": sections.versions(run, md),
    }
    card = ModelCard.from_template(_metadata(run, folder, origin, md), template_path=str(TEMPLATE), **values)
    return ModelCard(_marked(str(card)))


def for_repository(text: str, repository: str) -> str:
    """A card that nobody has changed, with the name of its repository in the examples."""
    return _marked(with_name(MARK.sub("", text), repository))


def _marked(text: str) -> str:
    return f"{text.rstrip()}\n\n<!-- olmoe_ft card: {_digest(text)} -->\n"


def write_card(run: RunFiles, folder: Path | None = None) -> bool:
    """Write `README.md` beside the weights of a run, unless a person has written one.

    Args:
        folder: `final/` of the run if None, or a folder that the run was merged into.
    Returns:
        whether it was written.
    Raises:
        UserError: it has not finished.
    """
    folder = folder or run.path / "final"
    if not folder.is_dir():
        raise UserError(f"{run.path}: there is no {folder}, so that run has not finished; start it again to finish it")
    if not may_be_replaced(folder / CARD):
        return False
    write_text(folder / CARD, str(model_card(run, folder)))
    return True


def may_be_replaced(file: Path) -> bool:
    """Whether a card is not there, is one of ours that nobody has changed, or is PEFT's form with nothing filled in."""
    try:
        text = file.read_text(encoding="utf-8")
    except FileNotFoundError:
        return True
    except (OSError, UnicodeDecodeError):
        return False
    if (mark := MARK.search(text)) is not None:
        return mark[1] == _digest(text[: mark.start()])
    return _is_empty_form(text)


def _digest(text: str) -> str:
    lines = text.replace("\r\n", "\n").rstrip()
    return hashlib.sha256(lines.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def _is_empty_form(text: str) -> bool:
    """Whether a card has no line but those of huggingface_hub's template and PEFT's version."""
    try:
        lines = {line.strip() for line in ModelCard(text, ignore_metadata_errors=True).text.splitlines()}
    except (ValueError, yaml.YAMLError):
        return False
    form = {line.strip() for line in ModelCard.from_template(ModelCardData()).text.splitlines()}
    return all(re.fullmatch(r"### Framework versions|- PEFT \S+", line) for line in lines - form)


# ---- metadata ----


def _metadata(run: RunFiles, folder: Path, origin: Origin, md: Markdown) -> ModelCardData:
    adapter = is_adapter(str(folder))
    base = base_on_hub(folder) if adapter else origin.hub
    results = [*_results(run, md)]
    stage = str(run.recipe.get("stage", ""))
    return ModelCardData(
        license=origin.license,
        library_name="peft" if adapter else "transformers",
        pipeline_tag=TASK,
        base_model=base,
        base_model_relation=("adapter" if adapter else "finetune") if base else None,
        datasets=sections.datasets(run) or None,
        tags=[
            "olmoe",
            "moe",
            *([stage] if stage in STAGES else []),
            *(["lora"] if "lora" in run.recipe else []),
            "olmoe_ft",
        ],
        model_name=md.line(run.name) if results else None,
        eval_results=results or None,
    )


def _results(run: RunFiles, md: Markdown) -> Iterator[EvalResult]:
    """The scores after training; what is not finite has no place in YAML."""
    evaluated = run.evaluated
    for score in evaluated.asked("after"):
        if math.isfinite(score.value):
            yield _result(score, evaluated.at("after")[score.task], md)


def _result(score: Score, measured: Measured, md: Markdown) -> EvalResult:
    task, metric = md.line(score.task), md.line(score.metric)
    about = [f"{score.shots} examples"] if score.shots else []
    if measured.evaluation is not None and limit_of(measured.evaluation) is not None:
        about.append(f"the first {score.n:,} questions")
    return EvalResult(
        task_type=TASK,
        task_name="Text generation",
        dataset_type=re.sub(r"[^\w.-]+", "-", task).strip("-") or "task",
        dataset_name=task,
        metric_type=metric.partition("/")[0],
        metric_name=", ".join([metric, *about]),
        metric_value=round(score.value, 6),
    )


# ---- sentences ----


def _summary(run: RunFiles, folder: Path, origin: Origin, network: Mapping[str, Any], md: Markdown) -> str:
    sizes = [network.get(key) for key in ("num_hidden_layers", "num_experts", "num_experts_per_tok")]
    if all(sizes):
        layers, experts, chosen = sizes
        what = f"an OLMoE mixture of experts: {layers} layers of {experts} experts, of which {chosen} work on a token"
    else:
        what = "an OLMoE mixture of experts"
    adapter = is_adapter(str(folder))
    kind = "LoRA adapters for" if adapter else "The weights of"
    path = "; then ".join(_step(one, md) for one in (*origin.stages, run.recipe))
    folded = " The adapters are folded in." if "lora" in run.recipe and not adapter else ""
    return f"{kind} {what}. Trained with olmoe_ft: {path}.{folded} {_start(origin, md)}"


def _step(recipe: Mapping[str, Any], md: Markdown) -> str:
    trained = "adapters" if "lora" in recipe else "all weights"
    return f"{trained} by {_title(recipe)} ({md.code(str(recipe.get('name', '?')))})"


def _title(recipe: Mapping[str, Any]) -> str:
    stage = STAGES.get(str(recipe.get("stage")))
    return stage.title if stage is not None else "training"


def _start(origin: Origin, md: Markdown) -> str:
    if origin.hub is not None:
        return f"It began with [{md.plain(origin.hub)}](https://huggingface.co/{origin.hub})."
    if origin.random:
        return f"It began with random weights ({md.code(origin.name)}), not with a pretrained model."
    return f"It began with weights of a local folder{', ' + md.code(origin.name) if origin.name else ''}."


def _limitations(run: RunFiles, folder: Path, origin: Origin) -> Iterator[str]:
    yield "Nothing but the scores above was measured. It was not tested for safety, bias or harmful answers."
    if origin.random:
        yield "It began with random weights and has seen no text but training rows, so it can do nothing else."
    if is_adapter(str(folder)):
        yield "The adapters fit the weights that they were trained on and no others."
    if run.summary is None:
        yield "The run has not finished; these are the figures so far."


def _license(origin: Origin, md: Markdown) -> str:
    if origin.license is not None:
        base = f"The base model {md.plain(origin.hub or '')} is under {origin.license}."
    elif origin.random:
        base = "There is no base model."
    else:
        base = "The licence of the base model is not known here; look at its page."
    return (
        f"{base} Licences of the data: see *Data*. A recipe names no licence: whoever publishes this model chooses "
        "one, and writes it as `license` at the top of this file."
    )
