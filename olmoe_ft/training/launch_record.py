"""What a launch ran on and how it ended, for `run.json`."""

import platform
import shutil
import subprocess
import sys
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import psutil

from olmoe_ft.shipped import CHECKOUT, FILES

LIBRARIES = ("torch", "transformers", "trl", "peft", "accelerate", "deepspeed", "datasets", "tokenizers", "wandb")
LAUNCHERS = {  # programs and modules that start processes, and how they are typed
    "accelerate": ["accelerate"],
    "accelerate.commands.accelerate_cli": ["accelerate"],
    "accelerate.commands.launch": ["accelerate", "launch"],
    "torchrun": ["torchrun"],
    "torch.distributed.run": ["torchrun"],
    "deepspeed": ["deepspeed"],
}
OURS = "olmoe-ft"


@dataclass(frozen=True, kw_only=True)
class Launch:
    """One entry of `run.json`, in the order of its keys there."""

    started: str = field(default_factory=lambda: utc_now())
    """When the record was made, in UTC."""
    command: list[str] = field(default_factory=lambda: typed_command())
    """The words that started it, the launcher's included."""
    machine: dict[str, Any] = field(default_factory=dict)
    """Its hardware (`olmoe_ft.training.hardware`); no name of a computer."""
    engine: str = "no DeepSpeed"
    """What holds the optimizer's states."""
    python: str = field(default_factory=platform.python_version)
    libraries: dict[str, str] = field(default_factory=lambda: {name: version(name) for name in LIBRARIES})
    git_revision: str | None = field(default_factory=lambda: git_revision())
    processes: int
    device: str
    resumed_from: str | None
    """The checkpoint's name; None where the run begins here."""
    data: dict[str, Any]
    """Hashes of the training rows."""
    precision: dict[str, str]
    """The types of weights, arithmetic and so on, by name."""
    changed: list[str]
    """Keys of the recipe that are others than in the run so far."""
    accepted: dict[str, str]
    """What is another than before and was accepted by name, each with what was found."""

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Ended:
    """How a launch ended; a killed one has no such record."""

    how: Literal["finished", "stopped", "failed"]
    reason: str | None
    """One sentence; None where it finished."""
    step: int
    """Optimizer steps that the run has taken."""
    seconds: float
    """From its start to its end, evaluations included."""
    energy_joules: float | None
    """What all devices have used meanwhile; None where one does not report it."""

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def utc_now() -> str:
    """As ISO 8601 writes it, to a second."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def typed_command() -> list[str]:
    """The command of this launch as a person would type it again: `accelerate launch …`, `torchrun …`, `olmoe-ft …`."""
    with suppress(psutil.Error):  # a shared computer may hide the processes of others
        for process in psutil.Process().parents():
            words = process.cmdline()
            for place, word in enumerate(words[:3]):
                if (launcher := LAUNCHERS.get(Path(word).name)) is not None and _starts_python(words, place):
                    return [*launcher, *words[place + 1 :]]
    program, *words = sys.argv
    return [OURS if Path(program).name in ("__main__.py", OURS) else program, *words]


def _starts_python(words: list[str], place: int) -> bool:
    """Whether a word is the program, or what Python runs: no title of a terminal's window has the name by chance."""
    return place == 0 or Path(words[0]).name.startswith("python")


def git_revision() -> str | None:
    """The commit of the checkout that this code is in, with "-dirty" behind it where files differ.

    None where the package is installed, whatever repository that is in.
    """
    if not CHECKOUT or not (FILES / ".git").exists() or not shutil.which("git"):
        return None
    command = ["git", "-C", str(FILES), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    return result.stdout.strip() if result.returncode == 0 else None
