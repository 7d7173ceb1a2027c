"""The Hub: whether it can be reached, and why something on it cannot be had.

Every use of a Hub name goes through `reach_hub` first. Where nothing answers, each library would ask again and again
for every file; so the rest of the command is then offline, as with HF_HUB_OFFLINE=1.
"""

import os
import sys
from collections.abc import Iterator
from typing import Any, Literal
from urllib.parse import quote

from huggingface_hub import constants
from huggingface_hub.errors import (
    FileMetadataError,
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from olmoe_ft.ranks import is_first_here
from olmoe_ft.reasons import one_line
from olmoe_ft.recipe import Unreachable, UserError
from olmoe_ft.recipe.paths import sought
from olmoe_ft.servers import DOWN, why_no_answer

Kind = Literal["model", "tokenizer", "data set"]
ASKED_FIRST = {  # by the libraries
    "model": "{}/resolve/main/config.json",
    "tokenizer": "{}/resolve/main/tokenizer_config.json",
    "data set": "datasets/{}/resolve/main/README.md",
}
_answers: dict[str, str | None] = {}
"""Of endpoints that were asked: why there was no answer, None where there was one."""


def reach_hub(name: str, kind: Kind) -> None:
    """Before the Hub is used: find out once in a command whether it answers, and go offline where it does not.

    Args:
        name: what is looked for there.
    """
    if constants.is_offline_mode() or constants.ENDPOINT in _answers:
        return
    _answers[constants.ENDPOINT] = reason = why_unreachable(name, kind)
    if reason is not None:
        go_offline(reason)


def why_unreachable(name: str, kind: Kind, seconds: float | None = None) -> str | None:
    """Ask the Hub for the file that the libraries ask for first, as long as they would wait, but once.

    Returns:
        why it gives no answer; None where it answers, be it that there is no such file.
    """
    from huggingface_hub.utils import get_session

    seconds = seconds or constants.HF_HUB_ETAG_TIMEOUT
    url = f"{constants.ENDPOINT}/{ASKED_FIRST[kind].format(quote(name))}"

    def ask() -> None:
        answer = get_session().head(url, timeout=seconds, follow_redirects=False)
        if answer.status_code in DOWN:
            raise ConnectionError(f"it answers with error {answer.status_code}")

    return why_no_answer(ask, seconds)


def go_offline(reason: str) -> None:
    """Turn the rest of this command offline, in every library that asks the Hub, and say so."""
    _answers[constants.ENDPOINT] = reason
    os.environ["HF_HUB_OFFLINE"] = "1"  # for processes that are started from here
    constants.HF_HUB_OFFLINE = True
    if (config := sys.modules.get("datasets.config")) is not None:  # which has a copy from when it was imported
        config.HF_HUB_OFFLINE = config.HF_DATASETS_OFFLINE = True  # type: ignore[attr-defined]
    if is_first_here():  # each machine has a network of its own
        from olmoe_ft.data.terminal import say

        say(
            f"the Hub ({constants.ENDPOINT}) cannot be reached: {reason}; going on with what is in the cache, as with "
            "HF_HUB_OFFLINE=1",
            file=sys.stderr,
        )


def refuse_own_code(path: str, file: str, values: dict[str, Any]) -> None:
    """Refuse a folder or repository that brings code of its own, which transformers would ask to run.

    Args:
        values: what its `file` holds.
    Raises:
        UserError: it names code.
    """
    if values.get("auto_map"):
        raise UserError(
            f"{path}: its {file} asks for Python code of its own (auto_map), and no code of a checkpoint is run here; "
            "if transformers' own classes do the same, take `auto_map` out of that file"
        )


def refusal(name: str, kind: Kind, error: BaseException) -> UserError:
    """What to say where a library could not load something by its Hub name."""
    place = "file" if kind == "data set" else "folder"
    page = f"{constants.ENDPOINT}/{'datasets/' if kind == 'data set' else ''}{name}"
    found = [*_chain(error)]
    if _any(found, GatedRepoError):
        return Unreachable(
            f"{name}: the {kind} is gated; ask for access at {page}, then log in here with `hf auth login` or set "
            "HF_TOKEN"
        )
    if _any(found, RevisionNotFoundError):
        return UserError(f"{name}: the {kind} on the Hub has no such revision; {page} lists those there are")
    if _any(found, RepositoryNotFoundError):
        return UserError(
            f"{name} is neither a {place} here nor a {kind} on the Hub; check the name, or log in with `hf auth login` "
            f"if it is private ({sought(name)})"
        )
    if _any(found, HFValidationError):
        return UserError(f"{name} is neither a {place} here nor a name that the Hub allows; check it")
    if lost := next((one for one in found if _is_no_answer(one)), None):
        go_offline(one_line(lost))
    if constants.is_offline_mode() and (lost or _any(found, FileNotFoundError, OfflineModeIsEnabled, ConnectionError)):
        why = "cannot be reached" if _answers.get(constants.ENDPOINT) else "is not asked, as HF_HUB_OFFLINE is set"
        option = " --repo-type dataset" if kind == "data set" else ""
        return Unreachable(
            f"{name} is neither a {place} here nor a {kind} in the cache, and the Hub {why}; fetch it where there is a "
            f"network (hf download {name}{option} --local-dir FOLDER) and name that folder ({sought(name)})"
        )
    if strange := next((one for one in found if isinstance(one, HfHubHTTPError | FileMetadataError)), None):
        reason = str(strange).splitlines()[0].partition(". ")[0]
        return Unreachable(
            f"{name}: {constants.ENDPOINT} answers, but not as the Hub does ({reason}); check HF_ENDPOINT, a proxy, or "
            "whether this network wants a login first"
        )
    return Unreachable(f"{name} is neither a {place} here nor a {kind} that can be loaded: {one_line(error)[:300]}")


def error_of_data_set(name: str, revision: str | None, error: BaseException) -> BaseException:
    """The Hub's own error about a data set, which the `datasets` library has dropped; else the one there is."""
    from huggingface_hub import HfApi

    try:
        HfApi().dataset_info(name, revision=revision, timeout=constants.HF_HUB_ETAG_TIMEOUT)
        HfApi().auth_check(name, repo_type="dataset")
    except Exception as own:  # of the Hub or the network
        return own
    return error


def _is_no_answer(error: BaseException) -> bool:
    """Whether an error says that no server answered, or one that is down; not that offline nobody was asked."""
    import httpx2

    if isinstance(error, HfHubHTTPError):
        return error.response is not None and error.response.status_code in DOWN
    no_answer = isinstance(error, httpx2.TransportError | ConnectionError)
    return no_answer and not isinstance(error, OfflineModeIsEnabled) and not constants.is_offline_mode()


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """An error and all those that it was raised from, or behind."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _any(errors: list[BaseException], *kinds: type[BaseException]) -> bool:
    return any(isinstance(error, kinds) for error in errors)
