"""The Hub: whether it can be reached, and why something on it cannot be loaded.

Every use of a Hub name goes through `reach_hub` first. If nothing answers, each library would retry for every file. So
the rest of the command is then offline, as with HF_HUB_OFFLINE=1.
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

Kind = Literal["model", "tokenizer", "dataset"]
ASKED_FIRST = {  # the first file that the libraries request
    "model": "{}/resolve/main/config.json",
    "tokenizer": "{}/resolve/main/tokenizer_config.json",
    "dataset": "datasets/{}/resolve/main/README.md",
}
_answers: dict[str, str | None] = {}
"""For each endpoint that was asked: why there was no answer, or None if there was one."""


def reach_hub(name: str, kind: Kind) -> None:
    """Find out, once in a command and before the Hub is used, whether it answers; go offline if it does not.

    Args:
        name: what is looked for there.
    """
    if constants.is_offline_mode() or constants.ENDPOINT in _answers:
        return
    _answers[constants.ENDPOINT] = reason = why_unreachable(name, kind)
    if reason is not None:
        go_offline(reason)


def why_unreachable(name: str, kind: Kind, seconds: float | None = None) -> str | None:
    """Ask the Hub once for the file that the libraries request first, and wait as long as they would.

    Returns:
        why there is no answer; None if there is one, even that there is no such file.
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
    """Make the rest of this command offline, in every library that uses the Hub, and say so."""
    _answers[constants.ENDPOINT] = reason
    os.environ["HF_HUB_OFFLINE"] = "1"  # for child processes
    constants.HF_HUB_OFFLINE = True
    if (config := sys.modules.get("datasets.config")) is not None:  # it has its own copy
        config.HF_HUB_OFFLINE = config.HF_DATASETS_OFFLINE = True  # type: ignore[attr-defined]
    if is_first_here():  # once on each machine
        from olmoe_ft.data.terminal import say

        say(
            f"the Hub ({constants.ENDPOINT}) cannot be reached: {reason}; continuing with what is in the cache, as "
            "with "
            "HF_HUB_OFFLINE=1",
            file=sys.stderr,
        )


def refuse_own_code(path: str, file: str, values: dict[str, Any]) -> None:
    """Refuse a folder or repository that has its own code, which transformers would ask to run.

    Args:
        values: the content of its `file`.
    Raises:
        UserError: it names code.
    """
    if values.get("auto_map"):
        raise UserError(
            f"{path}: found auto_map in its {file}, which asks for the checkpoint's own Python code; no such code is "
            "run "
            "here; if transformers' own classes do the same, remove `auto_map` from that file"
        )


def refusal(name: str, kind: Kind, error: BaseException) -> UserError:
    """The error for something that a library could not load by its Hub name."""
    place = "file" if kind == "dataset" else "folder"
    page = f"{constants.ENDPOINT}/{'datasets/' if kind == 'dataset' else ''}{name}"
    found = [*_chain(error)]
    if _any(found, GatedRepoError):
        return Unreachable(
            f"{name}: the {kind} is gated; ask for access at {page}, then log in here with `hf auth login` or set "
            "HF_TOKEN"
        )
    if _any(found, RevisionNotFoundError):
        return UserError(f"{name}: the {kind} on the Hub has no such revision; {page} lists them")
    if _any(found, RepositoryNotFoundError):
        return UserError(
            f"{name}: there is no such {place} here and no such {kind} on the Hub; check the name, or log in with "
            f"`hf auth login` if it is private ({sought(name)})"
        )
    if _any(found, HFValidationError):
        return UserError(f"{name}: there is no such {place} here, and the Hub does not allow this name; check it")
    if lost := next((one for one in found if is_no_answer(one)), None):
        go_offline(one_line(lost))
    if constants.is_offline_mode() and (lost or _any(found, FileNotFoundError, OfflineModeIsEnabled, ConnectionError)):
        why = "cannot be reached" if _answers.get(constants.ENDPOINT) else "is not asked, because HF_HUB_OFFLINE is set"
        option = " --repo-type dataset" if kind == "dataset" else ""
        return Unreachable(
            f"{name}: there is no such {place} here and no such {kind} in the cache, and the Hub {why}; download it "
            "where "
            f"there is a network (hf download {name}{option} --local-dir FOLDER) and name that folder ({sought(name)})"
        )
    if strange := next((one for one in found if isinstance(one, HfHubHTTPError | FileMetadataError)), None):
        reason = str(strange).splitlines()[0].partition(". ")[0]
        return Unreachable(
            f"{name}: {constants.ENDPOINT} answers, but not like the Hub ({reason}); check HF_ENDPOINT, a proxy, or "
            "whether this network asks for a login first"
        )
    return Unreachable(
        f"{name}: there is no such {place} here and no such {kind} that can be loaded: {one_line(error)[:300]}"
    )


def error_of_dataset(name: str, revision: str | None, error: BaseException) -> BaseException:
    """The Hub's own error about a dataset, which the `datasets` library hides; otherwise `error` itself."""
    from huggingface_hub import HfApi

    try:
        HfApi().dataset_info(name, revision=revision, timeout=constants.HF_HUB_ETAG_TIMEOUT)
        HfApi().auth_check(name, repo_type="dataset")
    except Exception as own:  # from the Hub or the network
        return own
    return error


def is_no_answer(error: BaseException) -> bool:
    """Whether an error says that no server answered, or that it is down; not an error of offline mode."""
    import httpx2

    if isinstance(error, HfHubHTTPError):
        return error.response is not None and error.response.status_code in DOWN
    no_answer = isinstance(error, httpx2.TransportError | ConnectionError)
    return no_answer and not isinstance(error, OfflineModeIsEnabled) and not constants.is_offline_mode()


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """An error and all those that caused it."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _any(errors: list[BaseException], *kinds: type[BaseException]) -> bool:
    return any(isinstance(error, kinds) for error in errors)
