"""The Hub and W&B: whether there is a key, and whether they answer."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

from olmoe_ft.recipe import UserError

SECONDS = 3.0  # for the Hub to answer
KNOWN = "allenai/OLMoE-1B-7B-0924"


def hub_and_wandb(findings: list[str]) -> Iterator[str]:
    """The state of both. They are asked at the same time, so that a missing network costs one timeout only."""
    with ThreadPoolExecutor(2) as pool:
        hub, wandb = pool.submit(_hub, findings), pool.submit(_wandb, findings)
        yield hub.result()
        yield wandb.result()


def _hub(findings: list[str]) -> str:
    from huggingface_hub import constants, get_token

    from olmoe_ft.hub import why_unreachable

    key = "found a token" if get_token() else "no token"
    if constants.is_offline_mode():
        findings.append("HF_HUB_OFFLINE is set, so only what is in the cache can be used; unset it to use the Hub")
        return f"Hub: {constants.ENDPOINT}, {key}, not asked (HF_HUB_OFFLINE)"
    if (reason := why_unreachable(KNOWN, "model", SECONDS)) is None:
        return f"Hub: {constants.ENDPOINT}, {key}, answers"
    findings.append(
        f"the Hub cannot be reached ({reason}), so only what is in the cache can be used; check the network, a "
        "proxy (HTTPS_PROXY) or HF_ENDPOINT"
    )
    return f"Hub: {constants.ENDPOINT}, {key}, cannot be reached: {reason}"


def _wandb(findings: list[str]) -> str:
    from olmoe_ft.training.wandb_mode import choose, has_key, server, why_unreachable

    try:
        choice, key = choose("auto"), "found a key" if has_key() else "no key"
    except UserError as error:
        findings.append(str(error))
        return f"W&B: {error}"
    state = f"W&B: {server()}, {key}, tracking.wandb: auto is {choice.mode}"
    if choice.why is not None:
        return f"{state} ({choice.why})"
    if choice.mode == "online" and (reason := why_unreachable()):
        findings.append(
            f"W&B's server cannot be reached ({reason}), so `auto` goes offline and `online` is refused; "
            "check the network"
        )
        return f"{state}, but the server cannot be reached: {reason}"
    return state
