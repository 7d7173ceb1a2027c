"""The report: one part after the other; an error in one does not stop the others."""

import os
import re
from collections.abc import Callable, Iterable

from olmoe_ft.data.terminal import say
from olmoe_ft.doctor.accounts import hub_and_wandb
from olmoe_ft.doctor.environment import NAMES_OF_SECRETS, folders, variables
from olmoe_ft.doctor.machine import cpu, devices, memory
from olmoe_ft.doctor.software import choices, versions
from olmoe_ft.reasons import one_line

Findings = list[str]
PARTS: dict[str, Callable[[Findings], Iterable[str]]] = {
    "versions": versions,
    "devices": devices,
    "CPU": cpu,
    "memory": memory,
    "what a run in bfloat16 would use here": choices,
    "folders (free space)": folders,
    "environment": variables,  # before W&B, which sets a variable for itself
    "Hub and W&B": hub_and_wandb,
}
IN_AN_ADDRESS = re.compile(r"(?<=://)[^/@\s]+(?=@)")  # user and password
TOKENS = re.compile(r"\b(hf|sk|wandb_v1)_[A-Za-z0-9_]{20,}")


def print_report() -> None:
    """Print every part as it is found, then the findings."""
    findings: Findings = []
    for title, part in PARTS.items():
        print(f"{title}:")
        try:
            for line in part(findings):
                say(f"  {masked(line)}")
        except (
            Exception
        ) as error:  # a driver, a file system or a library can raise anything; it concerns this part only
            say(f"  unknown: {masked(one_line(error))[:300]}")
    print("what will slow down or break a run:")
    for number, finding in enumerate(findings, 1):
        say(f"  {number}. {masked(finding)}")
    if not findings:
        print("  found nothing")


def masked(text: str) -> str:
    """A text without secrets of the environment, or anything that looks like a secret."""
    secrets = {value for name, value in os.environ.items() if NAMES_OF_SECRETS.search(name) and len(value) > 5}
    for secret in sorted(secrets, key=len, reverse=True):
        text = text.replace(secret, "***")
    return TOKENS.sub("***", IN_AN_ADDRESS.sub("***", text))
