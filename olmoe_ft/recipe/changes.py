"""What may be another when the same run goes on: what does not change the past, and what a user accepts by name."""

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from typing import Any

from olmoe_ft.recipe.errors import UserError

ACCEPTABLE = {
    "data": "the training rows",
    "model": "the weights that the run started from",
    "tokenizer": "the tokenizer",
    "libraries": "versions of torch, transformers and the others",
    "processes": "the number of processes",
    "code": "code in the pickles of the checkpoint, which runs",
}
STEPS = ("training.max_steps", "training.num_train_epochs")
EVALUATION = ("data.eval", "training.eval_*", "training.per_device_eval_batch_size")
# keys of a recipe that decide how a run is watched, kept or ended, and no step that it has taken
FREE = (
    *STEPS,
    *EVALUATION,
    "data.cache",
    "data.answers",
    "tracking.*",
    "training.logging_*",
    "training.save_*",
    "training.ddp_timeout",
    "training.disable_tqdm",
    "training.log_level*",
    "training.dataloader_num_workers",
    "training.dataloader_prefetch_factor",
    "training.dataloader_persistent_workers",
)
# keys that may be another where a change is accepted; what they lead to is compared
WITH = {
    "data": ("data.*",),
    "model": ("model.path",),
    "tokenizer": ("model.tokenizer",),
    "processes": ("training.per_device_train_batch_size", "training.gradient_accumulation_steps"),
}


@dataclass(frozen=True)
class Restart:
    """How a launch treats what its run directory holds.

    Attributes:
        fresh: it is moved aside, and the run begins anew.
        accept: what may be another than when the checkpoint was written, of ACCEPTABLE.
    """

    fresh: bool = False
    accept: frozenset[str] = frozenset()

    @classmethod
    def of(cls, fresh: bool, accept: Sequence[str]) -> "Restart":
        """From the command line.

        Raises:
            UserError: nothing is called so.
        """
        names = [name for item in accept for name in item.split(",")]
        if unknown := [name for name in names if name not in ACCEPTABLE]:
            known = ", ".join(f"{name} ({what})" for name, what in ACCEPTABLE.items())
            raise UserError(f"--accept {unknown[0]}: not known; there are {known}")
        return cls(fresh, frozenset(names))


GO_ON = Restart()


def differences(before: Any, after: Any, key: str = "") -> list[str]:
    """The keys, with dots, in which two recipes differ."""
    if isinstance(before, dict) and isinstance(after, dict):
        names = sorted(before.keys() | after.keys())
        return [
            found
            for name in names
            for found in differences(before.get(name), after.get(name), f"{key}.{name}" if key else name)
        ]
    return [] if before == after else [key]


def of_another_run(differing: Sequence[str], accept: frozenset[str], follows_evaluation: bool = False) -> list[str]:
    """Those of the keys that would make another run of it.

    Args:
        accept: what may be another, of ACCEPTABLE.
        follows_evaluation: whether the learning rate is lowered by what evaluations find, so that they decide steps.
    """
    may = [*FREE, *(key for name in accept for key in WITH.get(name, ()))]
    if follows_evaluation:
        may = [pattern for pattern in may if pattern not in EVALUATION]
    return [key for key in differing if not _matches(key, may)]


def to_accept(keys: Sequence[str]) -> list[str]:
    """What has to be accepted for all of these keys to be others; nothing where one of them never may."""
    names = {key: name for name, patterns in WITH.items() for key in keys if _matches(key, patterns)}
    return sorted({*names.values()}) if len(names) == len(keys) else []


def _matches(key: str, patterns: Sequence[str]) -> bool:
    return any(fnmatch(key, pattern) for pattern in patterns)
