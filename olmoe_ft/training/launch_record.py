"""What a launch ran on, for `run.json`."""

import platform
import shutil
import subprocess
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from typing import Any

from olmoe_ft.shipped import CHECKOUT, FILES

LIBRARIES = ("torch", "transformers", "trl", "peft", "accelerate", "deepspeed", "datasets", "tokenizers", "wandb")


@dataclass(frozen=True, kw_only=True)
class Launch:
    """One entry of `run.json`, in the order of its keys there."""

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


def git_revision() -> str | None:
    """The commit of the checkout that this code is in, with "-dirty" behind it where files differ.

    None where the package is installed, whatever repository that is in.
    """
    if not CHECKOUT or not (FILES / ".git").exists() or not shutil.which("git"):
        return None
    command = ["git", "-C", str(FILES), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    return result.stdout.strip() if result.returncode == 0 else None
