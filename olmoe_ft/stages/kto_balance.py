"""What the audit counts in KTO's rows, and the weights of good and bad answers that balance them."""

from collections.abc import Callable, Iterator, Mapping
from math import ceil, floor, log10

import numpy as np
from datasets import Dataset

from olmoe_ft.data.mixture import hashes
from olmoe_ft.stages.base import Tally

BALANCE = (1.0, 1.5)  # of desirable_weight x good answers / (undesirable_weight x bad ones): the paper's eq. 9
GOOD, BAD, BOTH, TORN = "good answers", "bad answers", "prompts with both", "answers judged both good and bad"
COMMON = "rows of the commonest prompt"
MANY = 0.5  # of the rows have one prompt: half of these and more take the same few answers for the KL term


def tallies(rows: Dataset) -> dict[str, Tally]:
    """Rows by their label, the different prompts and answers that are in rows of both kinds, and how many rows are of
    one prompt."""
    good, prompts = np.array(rows["label"], dtype=bool), np.array(rows["prompt_hash"])
    # the same prompt and the same answer: one number
    pairs = np.stack([prompts, hashes(rows, "completion_ids")], axis=1)
    answers = np.unique(pairs, axis=0, return_inverse=True)[1].reshape(-1)
    both, torn = (Tally(len(np.intersect1d(ids[good], ids[~good])), len(np.unique(ids))) for ids in (prompts, answers))
    most = np.unique(prompts, return_counts=True)[1].max(initial=0)
    of_rows = (Tally(int(number), len(good)) for number in (good.sum(), (~good).sum(), most))
    return dict(zip((GOOD, BAD, COMMON), of_rows, strict=True)) | {BOTH: both, TORN: torn}


def advice(found: Mapping[str, Tally], of_good: float, of_bad: float, estimates: bool) -> Iterator[str]:
    """What a user should check.

    Args:
        found: the tallies of the rows of an epoch.
        of_good, of_bad: `training.desirable_weight` and `training.undesirable_weight`.
        estimates: whether the loss has a KL term.
    """
    good, bad, torn = (found[name].number for name in (GOOD, BAD, TORN))
    if not (good and bad):
        yield f"there are {good:,} {GOOD} and {bad:,} {BAD}; KTO learns what makes the difference, so give both kinds"
    elif not BALANCE[0] <= round(ratio := of_good * good / (of_bad * bad), 2) <= BALANCE[1]:
        lower, upper = (share * bad / good for share in BALANCE)
        yield (
            f"good answers weigh {ratio:.3g} times as much as bad ones ({good:,} x {of_good:g} to {bad:,} x "
            f"{of_bad:g}); the KTO paper advises {BALANCE[0]:g} to {BALANCE[1]:g}: set training.desirable_weight to "
            f"{_between(of_bad * lower, of_bad * upper)}, or training.undesirable_weight to "
            f"{_between(of_good / upper, of_good / lower)}"
        )
    if estimates and (common := found[COMMON]).number > MANY * common.of:
        yield (
            f"{COMMON}: {common}; the loss kto estimates its KL term from answers to other prompts, and there are few; "
            "give rows of more prompts, or set training.loss_type to apo_zero_unpaired"
        )
    if torn:
        yield (
            f"{TORN}: {torn:,}; such rows work against each other, so remove one of each, or raise training.max_length "
            "if they were cut to the same tokens"
        )


def _between(lower: float, upper: float) -> str:
    """Two limits to choose between, rounded inwards to three digits."""
    return f"{_rounded(lower, ceil)} … {_rounded(upper, floor)}"


def _rounded(limit: float, towards: Callable[[float], int]) -> str:
    step = 10.0 ** (floor(log10(limit)) - 2)
    return f"{towards(round(limit / step, 6)) * step:.3g}"  # 150.000000000003 steps are 150
