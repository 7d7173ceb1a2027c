"""What the stages that learn from preferences share: a prompt with its answers, and a reference model."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from olmoe_ft.stages.base import Stage

if TYPE_CHECKING:
    from olmoe_ft.recipe.options.given import Given
    from olmoe_ft.recipe.wording import Problem

OPTIONS = {
    "disable_dropout": "sets the dropout of adapters to 0 (the model configuration decides that of attention)",
    "precompute_ref_log_probs": "the reference's log-probabilities are computed once before training, and kept",
    "precompute_ref_batch_size": "rows or pairs that are computed at once for this; needs `precompute_ref_log_probs`",
    "sync_ref_model": "the reference follows the policy (TR-DPO); checkpoints contain it too",
    "ref_model_mixup_alpha": "how far the reference moves each time; needs `sync_ref_model`",
    "ref_model_sync_steps": "steps between the reference's moves; needs `sync_ref_model`",
}
UNREAD = {"learn": "all_answers", "turn_marks": "refuse"}  # keys of `data` that it does not read, with their defaults
MERGED = "the reference is the policy with its adapters off"


class PreferenceStage(Stage):
    """Rows have a prompt and answers that are better or worse; the loss compares the policy with a reference."""

    options = OPTIONS
    has_reference = True

    def rules(self) -> tuple[Callable[[Given], Iterator[Problem]], ...]:
        return broken_reference, padded

    def without_effect(self, given: Given, values: Mapping[str, Any]) -> Iterator[Problem]:
        if given.lora and values["lora"].get("dropout") and given["disable_dropout"]:
            yield "lora.dropout", f"training.disable_dropout is true, as it is by default in stage {self.name}"

    def unread_data(self, data: Mapping[str, Any]) -> Iterator[Problem]:
        from olmoe_ft.recipe.wording import shown

        yield from super().unread_data(data)
        judged = " and ".join(f"`{column.removesuffix('_ids')}`" for column in dict.fromkeys(self.answers))
        for key, usual in UNREAD.items():
            if (found := data.get(key, usual)) != usual:
                yield f"data.{key}", f"found {shown(found)}; stage {self.name} learns only from {judged}; remove it"

    def lays_end_to_end(self, attn_implementation: str) -> bool:
        return self.why_padded(attn_implementation) is None

    @property
    def answers(self) -> list[str]:
        """The columns of the answers."""
        return [parts[-1] for parts in self.sequences]


def conversation(example: Mapping[str, Any], answer: str) -> dict[str, Any]:
    """A prompt with one of its answers, which alone is learned; for `data/tokens.py`."""
    messages = example["prompt"] + example[answer]
    return {"messages": messages, "learned": [index == len(messages) - 1 for index in range(len(messages))]}


def padded(given: Given) -> Iterator[Problem]:
    """Options of padded rows."""
    from olmoe_ft.recipe.wording import shown

    if given.changed("pad_to_multiple_of"):
        yield (
            "pad_to_multiple_of",
            f"found {shown(given['pad_to_multiple_of'])}; rows are laid end to end without padding, or padded to the "
            "longest of their batch; remove it",
        )


def broken_reference(given: Given) -> Iterator[Problem]:
    """Mistakes in the options of the reference model."""
    from olmoe_ft.recipe.wording import shown

    synced, precomputed = given["sync_ref_model"], given["precompute_ref_log_probs"]
    if synced and given.lora:
        yield "sync_ref_model", f"found true with `lora`, where {MERGED} and cannot move; remove one of them"
    if synced and precomputed:
        yield (
            "sync_ref_model",
            "found true with precompute_ref_log_probs, which needs a fixed reference; remove one of them",
        )
    for name in ("ref_model_mixup_alpha", "ref_model_sync_steps"):
        if name in given and not synced:
            yield name, f"found {shown(given[name])} without `sync_ref_model: true`; add it, or remove this"
    if given["precompute_ref_batch_size"] is not None and not precomputed:
        yield (
            "precompute_ref_batch_size",
            f"found {shown(given['precompute_ref_batch_size'])} without `precompute_ref_log_probs: true`; add it, or "
            "remove this",
        )
    if given["neftune_noise_alpha"] and given.lora and not precomputed:
        yield (
            "neftune_noise_alpha",
            f"found {shown(given['neftune_noise_alpha'])} with `lora`, where {MERGED} and would get noise too; set "
            "`precompute_ref_log_probs: true`, or remove it",
        )
