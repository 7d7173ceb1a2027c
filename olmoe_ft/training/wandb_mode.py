"""Whether a run goes to Weights & Biases: by the recipe, the environment, the key and the network.

wandb takes a second to import, so it is imported where a key has to be looked for.
"""

import os
import ssl
from collections.abc import MutableMapping
from http.client import responses
from typing import TYPE_CHECKING, Literal, NamedTuple
from urllib.error import HTTPError, URLError
from urllib.request import ProxyHandler, Request, build_opener, getproxies

from olmoe_ft.ranks import is_first
from olmoe_ft.reasons import one_line
from olmoe_ft.recipe import Recipe, UserError
from olmoe_ft.servers import DOWN, why_no_answer

if TYPE_CHECKING:
    import wandb

Mode = Literal["off", "offline", "online"]
ORDER: tuple[Mode, ...] = ("off", "offline", "online")
WANDB_MODES: dict[str, Mode] = {  # of wandb.Settings.mode; here one process alone writes, so nothing is shared
    "online": "online",
    "run": "online",
    "shared": "online",
    "offline": "offline",
    "dryrun": "offline",
    "disabled": "off",
}
NOT_DISABLED = ("", "0", "f", "false", "n", "no", "off")
REACH = 5.0  # seconds for an answer of the server; half of what `auto` may take to go offline


class Choice(NamedTuple):
    """What a run does, and why where the recipe alone does not say so."""

    mode: Mode
    why: str | None = None


def asked_by_environment(environment: MutableMapping[str, str] | None = None) -> Choice | None:
    """What WANDB_DISABLED or WANDB_MODE ask for; afterwards WANDB_MODE is spelled as wandb takes it.

    Raises:
        UserError: WANDB_MODE is none of wandb's modes.
    """
    environment = os.environ if environment is None else environment  # `datasets` puts another one there in `map`
    disabled, mode = environment.get("WANDB_DISABLED", ""), environment.get("WANDB_MODE", "")
    if disabled.strip().lower() not in NOT_DISABLED:
        return Choice("off", f"WANDB_DISABLED={disabled} is set")
    if not mode.strip():
        environment.pop("WANDB_MODE", None)  # wandb refuses an empty one
        return None
    if (small := mode.strip().lower()) not in WANDB_MODES:
        raise UserError(f"WANDB_MODE: found {mode!r}; allowed: {', '.join(WANDB_MODES)}; correct it or unset it")
    environment["WANDB_MODE"] = small
    return Choice(WANDB_MODES[small], f"WANDB_MODE={mode} is set")


def choose(setting: str) -> Choice:
    """The mode of a run. The environment decides `auto`, and can switch less on than the recipe says, never more.

    Args:
        setting: the recipe's `tracking.wandb`.
    Raises:
        UserError: WANDB_MODE is none of wandb's modes; `online` without a usable key.
    """
    if setting == "off":
        return Choice("off")
    asked = asked_by_environment()
    if (
        asked is not None
        and asked.mode != "online"
        and (setting == "auto" or ORDER.index(asked.mode) < ORDER.index(setting))
    ):
        return asked
    if setting == "offline":
        return Choice("offline")
    try:
        if has_key():
            return Choice("online")
    except UserError as error:
        if setting == "online":
            raise
        return Choice("offline", str(error))
    if setting == "online":
        raise UserError(
            f"tracking.wandb: found online, and there is no key for {server()}; run `wandb login`, set WANDB_API_KEY, "
            "or set tracking.wandb to auto or offline"
        )
    return Choice("offline", f"{asked.why} and there is no key for {server()}" if asked else None)


def check_tracking(recipe: Recipe) -> None:
    """Before anything is written: `online` needs a key and a server that answers.

    Raises:
        UserError: it has not, or WANDB_MODE is none of wandb's modes.
    """
    setting = recipe.tracking.wandb
    if setting == "off" or not is_first():  # the first process alone tracks
        return
    if setting != "online":
        asked_by_environment()
    elif choose(setting).mode == "online" and (reason := why_unreachable()):
        raise UserError(
            f"tracking.wandb: found online, and {server()} cannot be reached: {reason}; set tracking.wandb to auto or "
            "offline, and send the run later with `wandb sync`"
        )


def has_key() -> bool:
    """Whether wandb finds a key for its server; it looks itself (environment, netrc, settings), and asks nobody.

    Raises:
        UserError: it refuses a key, or a setting in the environment.
    """
    from wandb.errors import AuthenticationError
    from wandb.sdk.lib import wbauth

    try:
        key = wbauth.authenticate_session(host=server(), source="olmoe_ft", prompt=False, update_session=False)
    except (AuthenticationError, ValueError) as error:
        raise UserError(f"wandb refuses its key or settings: {one_line(error)}") from None
    return key is not None


def server() -> str:
    """The address of W&B's server, by wandb's settings: WANDB_BASE_URL, its files, its default."""
    return wandb_settings().base_url


def wandb_settings() -> "wandb.Settings":
    """wandb's settings by its files and the environment, read once in a process.

    Offline here, so that wandb sends nothing about its own use to a server that may be away; a run has its own mode.
    """
    import wandb

    return wandb.setup(wandb.Settings(mode="offline")).settings


def why_unreachable() -> str | None:
    """Ask W&B's server one thing; why there is no answer, None where there is one."""
    settings = wandb_settings()
    own = {"http": settings.http_proxy, "https": settings.https_proxy}
    proxies = getproxies() | {scheme: proxy for scheme, proxy in own.items() if proxy}
    question = Request(
        f"{settings.base_url}/graphql",
        data=b'{"query": "{ __typename }"}',
        headers={"content-type": "application/json"},
    )

    def ask() -> None:
        try:
            build_opener(ProxyHandler(proxies)).open(question, timeout=REACH)
        except HTTPError as error:
            if error.code in DOWN:
                raise ConnectionError(f"it answers with error {error.code} ({responses[error.code]})") from None
        except URLError as error:
            if not isinstance(error.reason, ssl.SSLCertVerificationError):  # wandb has certificates of its own
                raise ConnectionError(str(error.reason)) from None

    return why_no_answer(ask, REACH)
