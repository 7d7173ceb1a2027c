"""What may change when a run continues: what cannot change past steps, and what a user accepts with --accept."""

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
    "code": "running the code in the checkpoint's pickles",
}
STEPS = ("training.max_steps", "training.num_train_epochs")
EVALUATION = ("data.eval", "training.eval_*", "training.per_device_eval_batch_size")
# keys that decide how a run is watched, saved or ended; they change none of the steps that it has taken
FREE = (
    *STEPS,
    *EVALUATION,
    "data.cache",
    "data.answers",
    "evaluation.*",
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
# keys that may change if the user accepts it; the rows, weights or counts behind them are compared
WITH = {
    "data": ("data.*",),
    "model": ("model.path",),
    "tokenizer": ("model.tokenizer",),
    "processes": ("training.per_device_train_batch_size", "training.gradient_accumulation_steps"),
}


@dataclass(frozen=True)
class Restart:
    """What a launch does with an earlier run in its run directory.

    Attributes:
        fresh: move it aside and start again from step 0.
        accept: the names in ACCEPTABLE that may have changed since the checkpoint was written.
    """

    fresh: bool = False
    accept: frozenset[str] = frozenset()

    @classmethod
    def of(cls, fresh: bool, accept: Sequence[str]) -> "Restart":
        """From the command line.

        Raises:
            UserError: a name is not in ACCEPTABLE.
        """
        names = [name for item in accept for name in item.split(",")]
        if unknown := [name for name in names if name not in ACCEPTABLE]:
            known = ", ".join(f"{name} ({what})" for name, what in ACCEPTABLE.items())
            raise UserError(f"--accept: found {unknown[0]}; allowed: {known}")
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
    """The keys whose change would make this a different run.

    Args:
        accept: the names in ACCEPTABLE that may change.
        follows_evaluation: whether evaluations can lower the learning rate, so that they change the steps.
    """
    may = [*FREE, *(key for name in accept for key in WITH.get(name, ()))]
    if follows_evaluation:
        may = [pattern for pattern in may if pattern not in EVALUATION]
    return [key for key in differing if not _matches(key, may)]


def to_accept(keys: Sequence[str]) -> list[str]:
    """The names to accept so that all of these keys may change; empty if one of them never may."""
    names = {key: name for name, patterns in WITH.items() for key in keys if _matches(key, patterns)}
    return sorted({*names.values()}) if len(names) == len(keys) else []


def _matches(key: str, patterns: Sequence[str]) -> bool:
    return any(fnmatch(key, pattern) for pattern in patterns)
