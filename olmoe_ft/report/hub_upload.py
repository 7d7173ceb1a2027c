"""Send files to a repository of the Hub, in one commit. huggingface_hub uploads, retries and resumes."""

from huggingface_hub import CommitOperationAdd, HfApi, constants, get_token
from huggingface_hub.errors import HfHubHTTPError, RevisionNotFoundError

from olmoe_ft.checkpoints.manifest import CARD
from olmoe_ft.hub import is_no_answer, why_unreachable
from olmoe_ft.reasons import one_line
from olmoe_ft.recipe import Unreachable, UserError
from olmoe_ft.report.to_send import ToSend

NO_RIGHT = (401, 403)


def check_reachable(repository: str) -> None:
    """Whether there is a token, and a Hub that answers.

    Raises:
        UserError: nobody is logged in, or the Hub cannot be reached.
    """
    if constants.is_offline_mode():
        raise Unreachable(
            f"{repository}: nothing is sent, because HF_HUB_OFFLINE is set; unset it where there is a network"
        )
    if get_token() is None:
        raise UserError(f"{repository}: found no token of the Hub; log in with `hf auth login`, or set HF_TOKEN")
    if (reason := why_unreachable(repository, "model")) is not None:
        raise Unreachable(
            f"{repository}: nothing is sent, because the Hub ({constants.ENDPOINT}) cannot be reached: {reason}; "
            "push where there is a network"
        )


def upload(sent: ToSend, public: bool, revision: str | None, message: str) -> tuple[str, list[str]]:
    """Make the repository where it is not there, and commit the files.

    Args:
        public: whether everybody may see it; a repository that is there stays as it is.
        revision: the branch, made where it is not there; None is main.
    Returns:
        the commit's URL, and the files that were in the branch before and are not among those sent.
    Raises:
        UserError: the Hub refuses, or the repository is public and `public` is not set.
    """
    try:
        return _upload(HfApi(), sent, public, revision, message)
    except UserError:
        raise
    except Exception as error:
        if isinstance(error, ValueError) and CARD in str(error):  # metadata that a person has written
            raise UserError(f"{sent.repository}: nothing is sent ({one_line(error)[:300]}); correct it") from None
        raise _refusal(sent.repository, error) from error


def _upload(api: HfApi, sent: ToSend, public: bool, revision: str | None, message: str) -> tuple[str, list[str]]:
    name = sent.repository
    api.create_repo(name, private=not public, exist_ok=True)
    if not api.model_info(name).private and not public:
        raise UserError(f"{name} is there, and everybody can see it; add --public if that is meant, or name another")
    if revision is not None:
        api.create_branch(name, branch=revision, exist_ok=True)
    names = {file.name for file in sent.files}
    others = [file for file in api.list_repo_files(name, revision=revision) if file not in names]
    add = [CommitOperationAdd(file.name, file.content) for file in sent.files]
    commit = api.create_commit(name, add, commit_message=message, revision=revision)
    return commit.commit_url, [file for file in others if file != ".gitattributes"]


def _refusal(name: str, error: Exception) -> Exception:
    """What to say of an error of the Hub or the network; the error itself where it is neither's."""
    if isinstance(error, HfHubHTTPError) and not is_no_answer(error):
        reason, status = one_line(error)[:300], error.response.status_code if error.response is not None else None
        if isinstance(error, RevisionNotFoundError):
            return UserError(f"{name}: there is no such revision ({reason}); name a branch")
        if status in NO_RIGHT:
            return UserError(
                f"{name}: the Hub refuses ({reason}); log in with a token that may write there: hf auth login"
            )
        return UserError(f"{name}: the Hub refuses ({reason})")
    if is_no_answer(error):
        return Unreachable(
            f"{name}: the connection to the Hub was lost ({one_line(error)[:300]}); push again: what it has by now is "
            "not sent twice"
        )
    return error
