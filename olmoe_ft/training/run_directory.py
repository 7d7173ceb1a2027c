"""`runs/<name>/`: what a run leaves behind, and how the same command goes on where it stopped."""

import shutil
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import yaml
from pydantic import ValidationError

from olmoe_ft.checkpoints import manifest
from olmoe_ft.checkpoints.manifest import damage, entries, write_manifest
from olmoe_ft.checkpoints.run_checkpoints import RunCheckpoints, read_object, stood_on
from olmoe_ft.constants import GIB
from olmoe_ft.model.size import all_parameters
from olmoe_ft.recipe import Recipe, UserError
from olmoe_ft.recipe.changes import GO_ON, STEPS, Restart, differences, of_another_run, to_accept
from olmoe_ft.recipe.metrics import FOLLOWING
from olmoe_ft.training import lock
from olmoe_ft.training.files import existing, free_space, read_yaml, to_json, write_text
from olmoe_ft.training.launch_record import Ended, Launch

if TYPE_CHECKING:
    from olmoe_ft.model import OlmoeConfig

BYTES = {"float32": 4, "bfloat16": 2}  # of a weight
UNTRAINED = "No step was trained here. The next launch of this name removes what is in this folder and starts anew.\n"
PRINTED = ("name", "steps", "train_seconds", "train_loss")  # of the summary, whenever a finished run is named


class RunDirectory:
    """Paths of a run and the few files of its own. Only rank 0 writes."""

    def __init__(self, recipe: Recipe) -> None:
        self.recipe = recipe
        self.path = recipe.run_dir
        self.stored = self.path / "recipe.yaml"
        self.checkpoints = RunCheckpoints(self.path / "checkpoints")
        self.base = self.path / "base"  # the starting weights, where no checkpoint elsewhere holds them
        self.final = self.path / "final"
        self.manifest = self.path / manifest.NAME  # of the files beside final/, when the run has finished
        self.unfinished = self.path / ".final"  # what becomes final/ when the run has finished
        self.evaluated = self.path / ".evaluated"  # weights between two steps, while they are evaluated
        self.metrics = self.path / "metrics.jsonl"
        self.summary = self.path / "summary.json"
        self.launches = self.path / "run.json"
        self.plan = self.path / "plan.json"
        self.report = self.path / "report.html"
        self.untrained = self.path / "UNTRAINED"  # there until the first step is done: so long nothing is worth keeping
        self.data_report = self.path / "data_report.json"
        self.lock = self.path / lock.NAME
        self.routing_table = self.path / "routing.parquet"
        self.routing_picture = self.path / "routing.png"
        self.routing_probe = self.path / "routing_probe.safetensors"

    def check(self, restart: Restart = GO_ON) -> None:
        """Refuse a directory that holds something else.

        Raises:
            UserError: it holds another recipe, naming what differs, or files that are no run's.
        """
        taken = next(
            (place for place in (self.path, *self.path.parents) if place.exists() and not place.is_dir()), None
        )
        if taken is not None:
            raise UserError(f"{taken} is a file, and {self.path}/ must be a folder; move it away")
        for place in (self.path, *self.path.parents):
            if place.is_symlink() and not place.exists():
                raise UserError(
                    f"{place} is a link to {place.readlink()}, which is not there; make it, or remove {place}"
                )
        if restart.fresh or self.untrained.exists():
            return
        if self._recipe_before() is None:
            if self.path.exists() and ({*self.path.iterdir()} - {self.data_report, self.lock}):
                raise UserError(
                    f"{self.path} holds files but no recipe.yaml that can be read; move it away, change `name`, or "
                    "keep it aside with --fresh"
                )
            return
        if others := self._others(self.changed(), restart.accept):
            names = ",".join(to_accept(others))
            go_on = f", or go on all the same with --accept {names}" if names else ""
            raise UserError(
                f"{self.path} holds the run of another recipe (it differs in {', '.join(others)}); "
                f"change `name`, start over with --fresh, which keeps that run aside{go_on}"
            )

    def changed(self) -> list[str]:
        """The keys of the recipe that are others than in the run so far."""
        if (before := self._recipe_before()) is None:
            return []
        if not (found := self._differences(before)):
            return []
        of_checkpoints = [*map(self._differences, self._recipes_of_checkpoints())]  # or has recipe.yaml been damaged?
        if of_checkpoints and not of_checkpoints[0]:
            return []
        if self._others(found):
            return next((other for other in of_checkpoints if not self._others(other)), found)
        return found

    def lengthened(self) -> bool:
        """Whether the recipe asks for another number of steps than the run so far."""
        given = (self.recipe.training.get("max_steps") or 0) > 0  # then epochs say nothing
        return bool({*self.changed()} & {"training.max_steps" if given else key for key in STEPS})

    def _others(self, keys: list[str], accept: frozenset[str] = frozenset()) -> list[str]:
        follows = self.recipe.training.get("lr_scheduler_type") in FOLLOWING
        return of_another_run(keys, accept, follows)

    def _differences(self, before: dict[str, Any]) -> list[str]:
        with suppress(ValidationError):  # a field that is newer than the run has its default there
            before = yaml.safe_load(Recipe.model_validate(before).to_yaml())
        return differences(before, yaml.safe_load(self.recipe.to_yaml()))

    def _recipe_before(self) -> dict[str, Any] | None:
        """The recipe of the run so far: from its own file, or if that is damaged from the newest checkpoint."""
        if (found := read_yaml(self.stored)) is not None:
            return found
        return next(self._recipes_of_checkpoints(), None)

    def _recipes_of_checkpoints(self) -> Iterator[dict[str, Any]]:
        for checkpoint in self.checkpoints.newest_first():
            note = stood_on(checkpoint)
            if note is not None and isinstance(note.get("recipe"), dict):
                yield note["recipe"]

    def begun(self) -> bool:
        """Whether a step was trained here; before that there may be a plan's report, or what a killed launch left."""
        return self._recipe_before() is not None and not self.untrained.exists()

    def finished(self) -> dict[str, Any] | None:
        """The summary of a run that has finished and is whole; None where something is left to do.

        A recipe with more steps than the run has taken makes it an unfinished one.
        """
        summary = read_object(self.summary)
        if summary is None or not set(PRINTED) <= summary.keys():
            return None
        if damage(self.path, alone=False) is not None or damage(self.final) is not None:
            return None
        if self.base.exists() and damage(self.base) is not None:
            return None
        return None if self.lengthened() else summary

    def create(self) -> None:
        self._make()
        write_text(self.stored, self.recipe.to_yaml())

    def mark_untrained(self) -> None:
        """Mark the directory until a step is trained; what an earlier launch left that trained none goes."""
        if self.begun():
            return
        if self.untrained.exists():
            self._empty({self.lock})
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
        self._empty({self.lock, *([self.data_report] if keep_report else [])})
        if not keep_report and not self.path.is_symlink():
            self.lock.unlink(missing_ok=True)
            self.path.rmdir()

    def _empty(self, kept: set[Path]) -> None:
        for place in set(self.path.iterdir()) - kept - {self.untrained}:
            shutil.rmtree(place) if place.is_dir() and not place.is_symlink() else place.unlink()
        self.untrained.unlink(missing_ok=True)

    def _make(self) -> None:
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise self._unwritable(error) from None

    def _unwritable(self, error: OSError) -> UserError:
        return UserError(f"{self.path} cannot be written ({error.strerror}); runs/ may be a link to a disk")

    def check_writable(self, config: "OlmoeConfig") -> None:
        """Whether the disk can be written, and has room for the weights in `final/`; checkpoints come on top of them
        (`olmoe_ft.training.space`, once the number of steps is known).

        Args:
            config: the network's.
        Raises:
            UserError: it cannot, or has not.
        """
        needed = 0 if self.recipe.lora else all_parameters(config) * BYTES[self.recipe.model.dtype]
        if (free := free_space(self.path)) < needed:
            raise UserError(
                f"{self.path}: the disk has {free / GIB:.1f} GiB left and the run will write at least "
                f"{needed / GIB:.1f}; make room, or let runs/ be a link to another disk"
            )
        try:
            with TemporaryDirectory(dir=existing(self.path)):
                pass
        except OSError as error:
            raise self._unwritable(error) from None

    def record_launch(self, launch: Launch) -> None:
        """Add to `run.json` what this run depends on, once for each launch that worked on it."""
        content = {"launches": [*self._recorded(), launch.as_dict()]}
        write_text(self.launches, to_json(content, indent=2) + "\n")

    def record_end(self, ended: Ended) -> None:
        """Add to the newest launch in `run.json` how it ended."""
        *before, newest = self._recorded()
        content = {"launches": [*before, {**newest, "ended": ended.as_dict()}]}
        write_text(self.launches, to_json(content, indent=2) + "\n")

    def write_plan(self, planned: dict[str, Any]) -> None:
        """What was planned for a launch, beside what it measures."""
        write_text(self.plan, to_json(planned, indent=2) + "\n")

    def _recorded(self) -> list[dict[str, Any]]:
        launches = (read_object(self.launches) or {}).get("launches")
        return launches if isinstance(launches, list) else []

    def copy_records(self, folder: Path) -> None:
        """Into a checkpoint: a run that continues from there has these records."""
        if self.metrics.exists():
            shutil.copyfile(self.metrics, folder / self.metrics.name)

    def write_data_report(self, report: dict[str, Any]) -> None:
        """Beside the run; `plan` writes it before there is one."""
        self._make()
        write_text(self.data_report, to_json(report, indent=2, ensure_ascii=False) + "\n")

    def finish(self, summary: dict[str, Any]) -> None:
        """Name the final weights, and say that the run has finished."""
        if self.final.exists():  # whole, of a launch that was killed before it wrote the summary
            shutil.rmtree(self.final)
        self.unfinished.rename(self.final)
        write_text(self.summary, to_json(summary, indent=2) + "\n")
        ends = (self.stored, self.metrics, self.summary, self.routing_table, self.routing_probe)
        folders = (self.base / manifest.NAME, self.final / manifest.NAME)  # of what is in them
        there = [file for file in (*ends, *folders) if file.exists()]
        write_manifest(self.path, entries(self.path, [file.relative_to(self.path).as_posix() for file in there]))
