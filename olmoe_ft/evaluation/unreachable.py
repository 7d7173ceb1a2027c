"""What to say of a task whose questions cannot be fetched."""

import re
from collections.abc import Iterator

from huggingface_hub import constants

from olmoe_ft.evaluation.task_files import takes_rows
from olmoe_ft.hub import refusal
from olmoe_ft.reasons import one_line
from olmoe_ft.recipe import Unreachable, UserError

NAMED = re.compile(r"'([\w.-]+/[\w.-]+)'|[Dd]ataset '?([\w.-]+/[\w.-]+)")  # in the errors of `datasets`
METRIC = re.compile(r"Module '(\w+)' doesn't exist on the Hugging Face Hub")  # in the errors of `evaluate`
RESOURCE = re.compile(r"Resource \S*?(\w+)\S* not found")  # in the errors of `nltk`, which IFEval's checks use
FETCH = "fetch it once where there is a network (the same command with --limit 1) and bring the cache here (HF_HOME)"
LEAVE_OUT = "or leave the task out"
CONSENT = "HF_ALLOW_CODE_EVAL"  # in the error of `code_eval` of `evaluate`


def refusal_of_task(task: str, error: BaseException, dataset: str | None = None, own_rows: bool = True) -> UserError:
    """One sentence for an error of `datasets`, `evaluate`, `nltk` or the Hub about what a task needs.

    Args:
        task: its name.
        error: what was raised when the task was loaded or run.
        dataset: on the Hub, of prompts for a judge; None reads it from the error.
        own_rows: whether to advise `TASK=FILE`, where that can put other rows in their place.
    """
    found = [*_causes(error)]
    texts = [" ".join(str(one).split()) for one in found]
    if any(CONSENT in text for text in texts):
        return UserError(
            f"{task}: it runs code which the model has written; allow it with --allow-code (`evaluation.allow_code: "
            f"true` in a recipe), in a container, {LEAVE_OUT}"
        )
    if metric := _first(METRIC, texts):
        return Unreachable(
            f"{task}: its metric {metric} cannot be loaded: no network, or not in the cache; {FETCH}, {LEAVE_OUT}"
        )
    if any(isinstance(one, LookupError) for one in found) and (resource := _first(RESOURCE, texts)):
        return Unreachable(
            f"{task}: its checks need {resource} of nltk, which is not on this machine; fetch it on a machine with a "
            f"network (python -m nltk.downloader {resource}), {LEAVE_OUT}"
        )
    judged = dataset is not None
    if (dataset := dataset or _first(NAMED, texts)) is None:
        return UserError(f"{task}: its questions cannot be loaded ({one_line(error)[:300]}); {LEAVE_OUT[3:]}")
    refused = refusal(dataset, "dataset", error)
    if not any(isinstance(one, OSError) for one in found) or not constants.is_offline_mode():
        return type(refused)(f"{task}: {refused}; {LEAVE_OUT}")
    return Unreachable(
        f"{task}: its dataset {dataset} cannot be loaded: no network, or not in the cache; {FETCH}, "
        + (f"give its rows in a file (--tasks {task}=FILE), " if own_rows and (judged or takes_rows(task)) else "")
        + LEAVE_OUT
    )


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _first(pattern: re.Pattern[str], texts: list[str]) -> str | None:
    """The first group that a pattern has in the texts."""
    for text in texts:
        if match := pattern.search(text):
            return next(group for group in match.groups() if group)
    return None
