"""Whether a run is sent to Weights & Biases: by the recipe, the environment, the key and the network.

wandb takes a second to import, so it is imported only when a key is looked for.
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
WANDB_MODES: dict[str, Mode] = {  # of wandb.Settings.mode; only one process writes here, so nothing is shared
    "online": "online",
    "run": "online",
    "shared": "online",
    "offline": "offline",
    "dryrun": "offline",
    "disabled": "off",
}
NOT_DISABLED = ("", "0", "f", "false", "n", "no", "off")
REACH = 5.0  # seconds to wait for the server; half of the time that `auto` may take to go offline


class Choice(NamedTuple):
    """The mode of a run, and the reason if the recipe alone does not decide it."""

    mode: Mode
    why: str | None = None


def asked_by_environment(environment: MutableMapping[str, str] | None = None) -> Choice | None:
    """The mode that WANDB_DISABLED or WANDB_MODE ask for; WANDB_MODE is then set to the spelling that wandb accepts.

    Raises:
        UserError: WANDB_MODE is not one of wandb's modes.
    """
    environment = os.environ if environment is None else environment  # `datasets` replaces os.environ in `map`
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
    """The mode of a run. The environment decides `auto`; otherwise it can only restrict what the recipe says.

    Args:
        setting: the recipe's `tracking.wandb`.
    Raises:
        UserError: WANDB_MODE is not one of wandb's modes, or the recipe says `online` and there is no usable key.
    """
    if setting == "off":
        return Choice("off")
    environment = asked_by_environment()
    if (
        environment is not None
        and environment.mode != "online"
        and (setting == "auto" or ORDER.index(environment.mode) < ORDER.index(setting))
    ):
        return environment
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
            f"tracking.wandb: found online, but no key for {server()}; run `wandb login`, set WANDB_API_KEY, "
            "or set tracking.wandb to auto or offline"
        )
    return Choice("offline", f"{environment.why}, but there is no key for {server()}" if environment else None)


def check_tracking(recipe: Recipe) -> None:
    """Check before anything is written that `online` has a key and a server that answers.

    Raises:
        UserError: it has not, or WANDB_MODE is not one of wandb's modes.
    """
    setting = recipe.tracking.wandb
    if setting == "off" or not is_first():  # only the first process tracks
        return
    if setting != "online":
        asked_by_environment()
    elif choose(setting).mode == "online" and (reason := why_unreachable()):
        raise UserError(
            f"tracking.wandb: found online, but {server()} cannot be reached: {reason}; set tracking.wandb to auto or "
            "offline, and send the run later with `wandb sync`"
        )


def has_key() -> bool:
    """Whether wandb finds a key for its server, in the environment, netrc or settings; without using the network.

    Raises:
        UserError: wandb refuses a key, or a setting in the environment.
    """
    from wandb.errors import AuthenticationError
    from wandb.sdk.lib import wbauth

    try:
        key = wbauth.authenticate_session(host=server(), source="olmoe_ft", prompt=False, update_session=False)
    except (AuthenticationError, ValueError) as error:
        raise UserError(
            f"wandb refuses its key or settings ({one_line(error)}); run `wandb login`, or "
            "correct WANDB_API_KEY and the other WANDB_ variables"
        ) from None
    return key is not None


def server() -> str:
    """The address of W&B's server, by wandb's settings: WANDB_BASE_URL, its files, its default."""
    return wandb_settings().base_url


def wandb_settings() -> "wandb.Settings":
    """wandb's settings from its files and the environment, read once in a process.

    They are offline, so that wandb does not report its own use to a server that may be down; a run has its own mode.
    """
    import wandb

    return wandb.setup(wandb.Settings(mode="offline")).settings


def why_unreachable() -> str | None:
    """Send one request to W&B's server; returns why there is no answer, or None if there is one."""
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
            if not isinstance(error.reason, ssl.SSLCertVerificationError):  # wandb has its own certificates
                raise ConnectionError(str(error.reason)) from None

    return why_no_answer(ask, REACH)
