"""Which options go together in stage dpo: what each loss uses."""

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


def labels_of_pairs(given: Given) -> Iterator[Problem]:
    """Smoothing of labels, which only stage sft has."""
    if given["label_smoothing_factor"]:
        yield (
            "label_smoothing_factor",
            f"found {shown(given['label_smoothing_factor'])}; DPO has no labels to smooth; set `label_smoothing` with "
            f"a loss_type of {', '.join(SMOOTHED)} instead",
        )


def broken_losses(given: Given) -> Iterator[Problem]:
    """Conflicts between the losses and the options they use."""
    losses = [given["loss_type"]] if isinstance(given["loss_type"], str) else given["loss_type"]
    if not losses:
        yield "loss_type", "found an empty list; give at least one loss, such as sigmoid"
        return
    named = f"with loss_type {', '.join(losses)}"
    weights = given["loss_weights"]
    if weights is not None and not (isinstance(weights, list) and all(_is_number(weight) for weight in weights)):
        yield "loss_weights", f"found {shown(weights)}; allowed: a list of numbers"
    elif weights is not None and len(weights) != len(losses):
        yield "loss_weights", f"found {len(weights)} for {len(losses)} losses ({', '.join(losses)}); give one for each"
    if "beta" in given and set(losses) == {"sft"}:
        yield "beta", f"found {shown(given['beta'])} {named}, which does not use it; remove it, or train stage sft"
    if given["label_smoothing"] and not set(losses) & {*SMOOTHED}:
        yield (
            "label_smoothing",
            f"found {shown(given['label_smoothing'])} {named}, which does not use it; remove it, or choose one of the "
            f"losses {', '.join(SMOOTHED)}",
        )
    if given.evaluation and (sorting := [loss for loss in losses if loss in SORTED]):
        yield (
            "loss_type",
            f"found {', '.join(sorting)}, which sorts the pairs of a micro-batch, so the evaluation loss would depend "
            "on the batch size; remove `data.eval`, or choose another loss",
        )
    if "exo_pair" in losses and not given["label_smoothing"]:
        yield "label_smoothing", "the loss exo_pair needs a value above 0; set it, for example to the 1e-3 of its paper"
    if "robust" in losses and given["label_smoothing"] >= 0.5:
        yield "label_smoothing", f"found {shown(given['label_smoothing'])}; allowed with the loss robust: below 0.5"
    if given.changed("discopop_tau") and "discopop" not in losses:
        yield "discopop_tau", f"found {shown(given['discopop_tau'])} {named}, which does not use it; remove it"
    divergence = given["f_divergence_type"]
    if divergence not in DIVERGENCES:
        yield "f_divergence_type", f"found {shown(divergence)}; allowed: {', '.join(DIVERGENCES)}"
    elif divergence != "reverse_kl" and (others := [loss for loss in losses if loss not in OF_DIFFERENCES]):
        yield (
            "f_divergence_type",
            f"found {shown(divergence)}, which does not work with the loss {', '.join(others)}; "
            f"allowed losses: {', '.join(OF_DIFFERENCES)}",
        )
    if given.changed("f_alpha_divergence_coef") and divergence != "alpha_divergence":
        yield (
            "f_alpha_divergence_coef",
            f"found {shown(given['f_alpha_divergence_coef'])}, which f_divergence_type {divergence} does not use; "
            "set `f_divergence_type: alpha_divergence`, or remove it",
        )
    if given["use_weighting"] and (others := [loss for loss in losses if loss in UNWEIGHTED]):
        yield (
            "use_weighting",
            f"found true {named}; TRL cannot weight {', '.join(others)} pair by pair; choose other losses",
        )


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
