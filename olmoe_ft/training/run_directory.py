"""`runs/<name>/`: what a run leaves behind, and how the same command goes on where it stopped."""

import json
import math
import os
import platform
import shutil
import subprocess
from collections.abc import Callable
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import yaml
from pydantic import ValidationError

from olmoe_ft.model.size import all_parameters
from olmoe_ft.recipe import Recipe, RecipeError
from olmoe_ft.shipped import CHECKOUT, FILES

if TYPE_CHECKING:
    from olmoe_ft.model import OlmoeConfig

LIBRARIES = ("torch", "transformers", "trl", "peft", "accelerate", "deepspeed", "datasets", "tokenizers", "wandb")
BYTES = {"float32": 4, "bfloat16": 2}  # of a weight
UNTRAINED = "No step was trained here. The next launch of this name removes what is in this folder and starts anew.\n"
PRINTED = ("name", "steps", "train_seconds", "train_loss")  # of the summary, whenever a finished run is named


class RunDirectory:
    """Paths of a run and the few files of its own. Only rank 0 writes."""

    def __init__(self, recipe: Recipe) -> None:
        self.recipe = recipe
        self.path = recipe.run_dir
        self.checkpoints = self.path / "checkpoints"
        self.base = self.path / "base"  # the starting weights, where no checkpoint elsewhere holds them
        self.final = self.path / "final"
        self.metrics = self.path / "metrics.jsonl"
        self.summary = self.path / "summary.json"
        self.launches = self.path / "run.json"
        self.untrained = self.path / "UNTRAINED"  # there until the first step is done: so long nothing is worth keeping
        self.data_report = self.path / "data_report.json"
        self.routing_table = self.path / "routing.parquet"
        self.routing_picture = self.path / "routing.png"
        self.routing_probe = self.path / "routing_probe.safetensors"

    def check(self) -> None:
        """Refuse a directory that holds something else.

        Raises:
            RecipeError: it holds another recipe, naming what differs, or files that are no run's.
        """
        taken = next(
            (place for place in (self.path, *self.path.parents) if place.exists() and not place.is_dir()), None
        )
        if taken is not None:
            raise RecipeError(f"{taken} is a file, and {self.path}/ is to be a folder; move it away")
        for place in (self.path, *self.path.parents):
            if place.is_symlink() and not place.exists():
                raise RecipeError(
                    f"{place} is a link to {place.readlink()}, which is not there; make it, or remove {place}"
                )
        if self.untrained.exists():
            return
        stored = self.path / "recipe.yaml"
        if not stored.exists():
            if self.path.exists() and any(file != self.data_report for file in self.path.iterdir()):
                raise RecipeError(f"{self.path} holds files but no recipe.yaml; move it away or change `name`")
            return
        before = _read(stored, yaml.safe_load)
        with suppress(ValidationError):  # a field that is newer than the run has its default there
            before = yaml.safe_load(Recipe.model_validate(before).to_yaml())
        differing = sorted({*_differences(before, yaml.safe_load(self.recipe.to_yaml()))} - {"data.cache"})
        if differing:
            raise RecipeError(
                f"{self.path} holds the run of another recipe (it differs in {', '.join(differing)}); "
                f"change `name`, or remove {self.path} to start over"
            )
        self._recorded()

    def begun(self) -> bool:
        """Whether a step was trained here; before that there may be a plan's report, or what a killed launch left."""
        return (self.path / "recipe.yaml").exists() and not self.untrained.exists()

    def create(self) -> None:
        self._make()
        write_text(self.path / "recipe.yaml", self.recipe.to_yaml())

    def mark_untrained(self) -> None:
        """Mark the directory until a step is trained; what an earlier launch left that trained none goes."""
        if self.begun():
            return
        if self.untrained.exists():
            self.remove()
        self._make()
        self.untrained.write_text(UNTRAINED, encoding="utf-8")  # half of it marks the directory as well

    def mark_trained(self) -> None:
        """From here on the directory is kept for this recipe."""
        self.untrained.unlink(missing_ok=True)

    def remove(self, keep_report: bool = False) -> None:
        """Remove what a launch wrote; the mark that it is not worth keeping goes last, since removing can be cut off.

        Args:
            keep_report: whether the report on the data stays, which `olmoe-ft plan` had written before.
        """
        if not self.path.exists():
            return
        kept = {self.untrained, *([self.data_report] if keep_report else [])}
        for place in set(self.path.iterdir()) - kept:
            shutil.rmtree(place) if place.is_dir() and not place.is_symlink() else place.unlink()
        self.untrained.unlink(missing_ok=True)
        if not keep_report and not self.path.is_symlink():
            self.path.rmdir()

    def _make(self) -> None:
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise self._unwritable(error) from None

    def _unwritable(self, error: OSError) -> RecipeError:
        return RecipeError(f"{self.path} cannot be written ({error.strerror}); runs/ may be a link to a disk")

    def check_space(self, config: "OlmoeConfig") -> None:
        """Whether the disk can be written, and has room for the weights in `final/`; checkpoints come on top of them.

        Args:
            config: the network's.
        Raises:
            RecipeError: it cannot, or has not.
        """
        place = next(place for place in (self.path.absolute(), *self.path.absolute().parents) if place.exists())
        needed = 0 if self.recipe.lora else all_parameters(config) * BYTES[self.recipe.model.dtype]
        if (free := shutil.disk_usage(place).free) < needed:
            raise RecipeError(
                f"{self.path}: the disk has {free / 2**30:.1f} GiB left and the run will write at least "
                f"{needed / 2**30:.1f}; make room, or let runs/ be a link to another disk"
            )
        try:
            with TemporaryDirectory(dir=place):
                pass
        except OSError as error:
            raise self._unwritable(error) from None

    def record_launch(self, **facts: Any) -> None:
        """Write `run.json`: what this run stood on, once for each launch that worked on it."""
        launch = {
            "python": platform.python_version(),
            "libraries": {name: version(name) for name in LIBRARIES},
            "git_revision": git_revision(),
            **facts,
        }
        write_text(self.launches, to_json({"launches": [*self._recorded(), launch]}, indent=2) + "\n")

    def _recorded(self) -> list[dict[str, Any]]:
        return _read(self.launches, json.loads, "launches")["launches"] if self.launches.exists() else []

    def last_checkpoint(self) -> Path | None:
        """The newest complete checkpoint; one that was being written when the run died does not count."""
        return max(filter(_is_complete, self.checkpoints.glob("checkpoint-*")), key=_step, default=None)

    def forget_after(self, checkpoint: Path | None) -> None:
        """Drop what a killed launch left beyond the checkpoint: half-written checkpoints, records of lost steps."""
        step = _step(checkpoint) if checkpoint else 0
        for folder in self.checkpoints.glob("checkpoint-*"):
            if _step(folder) > step:
                shutil.rmtree(folder)
        if self.metrics.exists():
            lines = self.metrics.read_text(encoding="utf-8").splitlines(keepends=True)
            try:
                kept = [line for line in lines if line.endswith("\n") and json.loads(line)["step"] <= step]
            except (ValueError, KeyError, TypeError):
                raise _damaged(self.metrics) from None
            write_text(self.metrics, "".join(kept) if checkpoint else "")

    def write_data_report(self, report: dict[str, Any]) -> None:
        """Beside the run; `plan` writes it before there is one."""
        self._make()
        write_text(self.data_report, to_json(report, indent=2, ensure_ascii=False) + "\n")

    def write_summary(self, summary: dict[str, Any]) -> None:
        write_text(self.summary, to_json(summary, indent=2) + "\n")

    def read_summary(self) -> dict[str, Any] | None:
        """The summary of a finished run, None while it has not finished."""
        return _read(self.summary, json.loads, *PRINTED) if self.summary.exists() else None


def _read(file: Path, parse: Callable[[str], Any], *keys: str) -> dict[str, Any]:
    try:
        found = parse(file.read_text(encoding="utf-8"))
    except (ValueError, yaml.YAMLError):
        found = None
    if not isinstance(found, dict) or not set(keys) <= found.keys():
        raise _damaged(file)
    return found


def to_json(value: Any, **how: Any) -> str:
    """Valid JSON, which knows no NaN: numbers that are not finite are the texts "NaN", "Infinity" and "-Infinity".

    So they are in the JSON of protocol buffers; `float` reads them."""
    return json.dumps(_without_nan(value), allow_nan=False, **how)


def _without_nan(value: Any) -> Any:
    match value:
        case float() if not math.isfinite(value):
            return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
        case dict():
            return {key: _without_nan(item) for key, item in value.items()}
        case list() | tuple():
            return [_without_nan(item) for item in value]
    return value


def _damaged(file: Path) -> RecipeError:
    return RecipeError(f"{file} is damaged; move {file.parent} away, or remove it to start over")


def _is_complete(checkpoint: Path) -> bool:
    """Whether its last file is there and whole."""
    try:
        json.loads((checkpoint / "trainer_state.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return True


def write_text(file: Path, text: str) -> None:
    """Write a file whole or not at all."""
    write_whole(file, lambda partial: partial.write_text(text, encoding="utf-8"))


def write_whole(file: Path, write: Callable[[Path], Any]) -> None:
    """Have a file written under another name, and give it its own when it is complete."""
    partial = file.with_name(file.name + ".partial")
    write(partial)
    os.replace(partial, file)


def git_revision() -> str | None:
    """The commit of the checkout that this code is in, with "-dirty" behind it where files differ.

    None where the package is installed, whatever repository that is in.
    """
    if not CHECKOUT or not (FILES / ".git").exists() or not shutil.which("git"):
        return None
    command = ["git", "-C", str(FILES), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    return result.stdout.strip() if result.returncode == 0 else None


def _step(checkpoint: Path) -> int:
    return int(checkpoint.name.rpartition("-")[2])


def _differences(before: Any, after: Any, key: str = "") -> list[str]:
    if isinstance(before, dict) and isinstance(after, dict):
        names = before.keys() | after.keys()
        return [
            found
            for name in names
            for found in _differences(before.get(name), after.get(name), f"{key}.{name}" if key else name)
        ]
    return [] if before == after else [key]
