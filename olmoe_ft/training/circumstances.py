"""What a checkpoint depends on beside its own files, compared when a run continues from it."""

import hashlib
from importlib.metadata import version
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase

from olmoe_ft.checkpoints.base_model import fingerprint
from olmoe_ft.checkpoints.folders import resolve_checkpoint
from olmoe_ft.checkpoints.run_checkpoints import step_of, stood_on
from olmoe_ft.recipe import Recipe, UserError
from olmoe_ft.stages import TrainerArguments
from olmoe_ft.training.arguments import zero_stage
from olmoe_ft.training.steps import Steps

COMPUTING = ("torch", "transformers", "trl", "peft", "accelerate", "deepspeed")  # libraries that make the numbers


def circumstances(
    recipe: Recipe,
    arguments: TrainerArguments,
    data: dict[str, Any],
    tokenizer: PreTrainedTokenizerBase,
    start: str,
    processes: int,
) -> dict[str, Any]:
    """What this launch depends on, as it is written into its checkpoints.

    Args:
        data: fingerprints of the training rows.
        start: the checkpoint the run starts from.
        processes: that train together.
    """
    rows = arguments.per_device_train_batch_size * arguments.gradient_accumulation_steps * processes
    return {
        "data": data,
        "model": fingerprint(_source(recipe, start)),
        "tokenizer": tokenizer_hash(tokenizer),
        "libraries": {name: version(name) for name in COMPUTING},
        "processes": processes,
        "engine": engine(arguments),
        "rows_a_step": rows,
        "recipe": recipe.model_dump(mode="json"),
    }


def _source(recipe: Recipe, start: str) -> str:
    """What the weights come from: an adapter is merged into `base/` once, and may be trained again later."""
    return start if recipe.model.path is None else resolve_checkpoint(recipe.model.path)


def refuse_other_start(recipe: Recipe, started_from: str | None, accept: frozenset[str]) -> None:
    """Refuse to call a run finished whose start has been trained again since, as the earlier stage of a pipeline may.

    Args:
        started_from: the fingerprint of its weights, as the finished run's summary has it; None where it has none.
        accept: `model` leaves it as it is.
    Raises:
        UserError: naming both.
    """
    path = recipe.model.path
    if path is None or started_from is None or "model" in accept or not Path(path).exists():
        return
    try:
        now = fingerprint(resolve_checkpoint(path))
    except UserError:  # it is not finished, or damaged, which is said where it is read
        return
    if now != started_from:
        raise UserError(
            f"{recipe.run_dir} has finished, from other weights than {path} has now; move {recipe.run_dir} away to "
            "train it from those, or keep it as it is with --accept model"
        )


def engine(arguments: TrainerArguments) -> str:
    """What holds the optimizer's states."""
    stage = zero_stage(arguments)
    return "no DeepSpeed" if stage is None else f"ZeRO-{stage}"


def tokenizer_hash(tokenizer: PreTrainedTokenizerBase) -> str:
    """Of everything that makes tokens of a conversation."""
    parts = (tokenizer.backend_tokenizer.to_str(), str(tokenizer.chat_template), str(tokenizer.special_tokens_map))
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:32]


def compare(checkpoint: Path, now: dict[str, Any], steps: Steps, accept: frozenset[str]) -> dict[str, str]:
    """Refuse to continue from a checkpoint of other circumstances, unless they are accepted by name.

    Returns:
        what is another and accepted, for `run.json`.
    Raises:
        UserError: naming all that differs and is not.
    """
    before = stood_on(checkpoint)
    assert before is not None  # or the checkpoint would not count as whole
    differing = {name: _said(name, before[name], now[name]) for name in _names(before, now)}
    refused = {name: what for name, what in differing.items() if name not in accept}
    wrong = [f"{what} (--accept {name})" for name, what in refused.items()]
    if wrong:
        wrong = [
            f"{checkpoint} was trained on something else: {'; '.join(wrong)}. Bring it back, start over with --fresh, "
            "or go on all the same with the option named behind each"
        ]
    # DeepSpeed's universal checkpoint of one stage lacks what another stage reads
    if _other_engine(checkpoint, before["engine"], now["engine"]):
        wrong = [
            f"{checkpoint} was trained with {before['engine']}, and this launch has {now['engine']}: the optimizer's "
            "states of one cannot be read by the other; launch as before, or start over with --fresh"
        ]
    if before["rows_a_step"] != now["rows_a_step"]:
        wrong.append(
            f"{checkpoint} was trained on {before['rows_a_step']} rows a step ({before['processes']} process(es)), and "
            f"this launch takes {now['rows_a_step']} ({now['processes']} process(es)): set "
            "training.gradient_accumulation_steps so that it is the same, which --accept processes allows"
        )
    if steps.steps < (done := step_of(checkpoint)):
        wrong.append(
            f"{checkpoint}: the run has taken {done} steps, and the recipe asks for {steps.steps}; raise "
            "training.max_steps (or num_train_epochs), or start over with --fresh"
        )
    if wrong:
        raise UserError(wrong)
    return differing


def _other_engine(checkpoint: Path, before: str, now: str) -> bool:
    """Earlier versions wrote "no DeepSpeed" into every checkpoint, those of DeepSpeed with its folder included."""
    known = before != "no DeepSpeed" or not any(checkpoint.glob("global_step*"))
    return known and before != now


def _names(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    names = ("data", "model", "tokenizer", "libraries", "processes")
    return [name for name in names if _key(name, before[name]) != _key(name, now[name])]


def _key(name: str, value: Any) -> Any:
    """Rows are compared by content, wherever they lie."""
    return value["fingerprint"] if name == "data" else value


def _said(name: str, before: Any, now: Any) -> str:
    match name:
        case "data":
            return f"other training rows ({before['rows']:,} before, {now['rows']:,} now)"
        case "libraries":
            return ", ".join(f"{of} {before.get(of)} before, {now[of]} now" for of in now if before.get(of) != now[of])
        case "model":
            return "other starting weights"
        case "tokenizer":
            return "another tokenizer"
    return f"{before} {name} before, {now} now"
