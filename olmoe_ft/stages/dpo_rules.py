"""Which options go together in stage dpo: what each loss reads, and which reference there is."""

from collections.abc import Iterator

from olmoe_ft.recipe.options.given import Given
from olmoe_ft.recipe.wording import Problem, shown

SMOOTHED = ("exo_pair", "robust", "aot", "aot_unpaired")
# sorted, one number for all pairs, or multiplied in place where autograd needs the value
UNWEIGHTED = ("aot", "aot_unpaired", "sft", "hinge")
SORTED = ("aot", "aot_unpaired")
DIVERGENCES = ("reverse_kl", "forward_kl", "js_divergence", "alpha_divergence")
# losses of the difference of the two answers' rewards, where the divergence's constant cancels; sft has no rewards
OF_DIFFERENCES = ("sigmoid", "sigmoid_norm", "hinge", "ipo", "exo_pair", "robust", "discopop", "sft")
MERGED = "the reference is the policy with its adapters off"


def labels_of_pairs(given: Given) -> Iterator[Problem]:
    """What only stage sft reads."""
    if given["label_smoothing_factor"]:
        yield (
            "label_smoothing_factor",
            f"found {shown(given['label_smoothing_factor'])}; DPO has no labels to smooth: set `label_smoothing` with "
            f"a loss_type of {', '.join(SMOOTHED)} instead",
        )
    if given.changed("pad_to_multiple_of"):
        yield (
            "pad_to_multiple_of",
            f"found {shown(given['pad_to_multiple_of'])}; pairs are laid end to end unpadded: remove it",
        )


def broken_losses(given: Given) -> Iterator[Problem]:
    """What is wrong between the losses and what each reads."""
    losses = [given["loss_type"]] if isinstance(given["loss_type"], str) else given["loss_type"]
    if not losses:
        yield "loss_type", "found an empty list; give at least one loss, such as sigmoid"
        return
    named = f"with loss_type {', '.join(losses)}"
    weights = given["loss_weights"]
    if weights is not None and not (isinstance(weights, list) and all(_is_number(weight) for weight in weights)):
        yield "loss_weights", f"found {shown(weights)}; a list of numbers is needed"
    elif weights is not None and len(weights) != len(losses):
        yield "loss_weights", f"found {len(weights)} for {len(losses)} losses ({', '.join(losses)}); give one for each"
    if "beta" in given and set(losses) == {"sft"}:
        yield "beta", f"found {shown(given['beta'])} {named}, which does not read it; remove it, or train stage sft"
    if given["label_smoothing"] and not set(losses) & {*SMOOTHED}:
        yield (
            "label_smoothing",
            f"found {shown(given['label_smoothing'])} {named}, which does not read it; {', '.join(SMOOTHED)} do",
        )
    if given.evaluation and (sorting := [loss for loss in losses if loss in SORTED]):
        yield (
            "loss_type",
            f"found {', '.join(sorting)}, which sorts the pairs of a micro-batch, so that its evaluation would change "
            "with the batch size; remove `data.eval`, or choose another loss",
        )
    if "exo_pair" in losses and not given["label_smoothing"]:
        yield "label_smoothing", "the loss exo_pair needs one above 0; its paper uses 1e-3"
    if "robust" in losses and given["label_smoothing"] >= 0.5:
        yield "label_smoothing", f"found {shown(given['label_smoothing'])}; the loss robust needs one below 0.5"
    if given.changed("discopop_tau") and "discopop" not in losses:
        yield "discopop_tau", f"found {shown(given['discopop_tau'])} {named}, which does not read it; remove it"
    divergence = given["f_divergence_type"]
    if divergence not in DIVERGENCES:
        yield "f_divergence_type", f"found {shown(divergence)}; allowed: {', '.join(DIVERGENCES)}"
    elif divergence != "reverse_kl" and (others := [loss for loss in losses if loss not in OF_DIFFERENCES]):
        yield (
            "f_divergence_type",
            f"found {shown(divergence)}, which {', '.join(others)} cannot be computed with; allowed are losses of "
            f"differences: {', '.join(OF_DIFFERENCES)}",
        )
    if given.changed("f_alpha_divergence_coef") and divergence != "alpha_divergence":
        yield (
            "f_alpha_divergence_coef",
            f"found {shown(given['f_alpha_divergence_coef'])}, which f_divergence_type {divergence} does not read; "
            "set `f_divergence_type: alpha_divergence`, or remove it",
        )
    if given["use_weighting"] and (others := [loss for loss in losses if loss in UNWEIGHTED]):
        yield "use_weighting", f"found true {named}; TRL cannot weight {', '.join(others)} pair by pair: choose others"


def broken_reference(given: Given) -> Iterator[Problem]:
    """What is wrong with the model that the policy is compared with."""
    synced, precomputed = given["sync_ref_model"], given["precompute_ref_log_probs"]
    if synced and given.lora:
        yield "sync_ref_model", f"found true beside `lora`, where {MERGED} and cannot move; remove one of them"
    if synced and precomputed:
        yield (
            "sync_ref_model",
            "found true beside precompute_ref_log_probs, which computes a fixed reference; remove one",
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
            f"found {shown(given['neftune_noise_alpha'])} beside `lora`, where {MERGED} and would get noise too; set "
            "`precompute_ref_log_probs: true`, or remove it",
        )


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
