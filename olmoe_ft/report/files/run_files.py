"""What a run has left so far. Whatever is missing or damaged is left out and named; nothing here fails for it."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any

from olmoe_ft.checkpoints.run_checkpoints import read_object
from olmoe_ft.evaluation.files import read_evaluations
from olmoe_ft.evaluation.score import Evaluation
from olmoe_ft.recipe import UserError
from olmoe_ft.report.files.evaluated import Evaluated
from olmoe_ft.report.files.metrics import Metrics, read_metrics
from olmoe_ft.training.files import read_yaml


@dataclass(frozen=True)
class RunFiles:
    """The files of `runs/<name>/` that a page is made of."""

    path: Path
    recipe: dict[str, Any]
    """`recipe.yaml`, resolved; empty where it cannot be read."""
    launches: list[dict[str, Any]]
    """`run.json`, the newest last (`olmoe_ft.training.launch_record`)."""
    metrics: Metrics
    summary: dict[str, Any] | None
    """`summary.json`; None of a run that has not finished."""
    data_report: dict[str, Any] | None
    plan: dict[str, Any] | None
    """`plan.json`: what was planned for the newest launch."""
    evaluations: list[Evaluation]
    """`evaluation.json`, without samples; the newest last."""
    unreadable: list[str] = field(default_factory=list)
    """Files that are damaged; a sentence each."""

    @property
    def name(self) -> str:
        return str(self.recipe.get("name", self.path.name))

    @property
    def stage(self) -> str:
        """The recipe's stage in capitals, as people write it."""
        return str(self.recipe.get("stage", "")).upper()

    @property
    def launch(self) -> dict[str, Any]:
        """The newest; empty where none was recorded."""
        return self.launches[-1] if self.launches else {}

    @cached_property
    def evaluated(self) -> Evaluated:
        """What was measured of each task before, during and after training."""
        summary, ends = self.summary or {}, [one.step for one in self.evaluations if one.when == "after" and one.step]
        end = summary.get("steps", max(ends, default=None))
        if isinstance(end, int) and self.metrics.last_step > end:  # it was lengthened, and has not come to its new end
            summary, end = {}, None
        return Evaluated(self.path, self.evaluations, summary, end, self.unreadable)


def read_run(path: Path) -> RunFiles:
    """The files of a run directory.

    Raises:
        UserError: it is no run directory.
    """
    if not path.is_dir():
        raise UserError(f"{path}: there is no such run directory; runs are in runs/, each with a recipe.yaml")
    recipe = read_yaml(path / "recipe.yaml")
    metrics = path / "metrics.jsonl"
    if recipe is None and not metrics.is_file():
        raise UserError(f"{path}: found neither recipe.yaml nor metrics.jsonl, so it is no run directory")
    unreadable: list[str] = []
    objects = {name: _object(path / f"{name}.json", unreadable) for name in ("run", "summary", "data_report", "plan")}
    if recipe is None:
        unreadable.append(f"{path / 'recipe.yaml'} cannot be read")
    launches = (objects["run"] or {}).get("launches")
    return RunFiles(
        path=path,
        recipe=recipe or {},
        launches=[one for one in launches if isinstance(one, dict)] if isinstance(launches, list) else [],
        metrics=read_metrics(metrics),
        summary=objects["summary"],
        data_report=objects["data_report"],
        plan=objects["plan"],
        evaluations=_evaluations(path, unreadable),
        unreadable=unreadable,
    )


def stages_of(path: Path) -> list[Path]:
    """The run directories of a pipeline's stages in the order they were trained; empty of anything else.

    A stage that starts from another one's weights comes after it; for the rest it is when each was first launched, or
    where that is not recorded for all, when their recipes were written.

    A stage is named `<pipeline>/<stage>`, and its folder by the last part of that. The runs of a sweep are named alike,
    and are no stages; neither are runs that a folder such as `runs/` just holds.
    """
    if (path / "recipe.yaml").exists() or (path / "sweep.json").exists():
        return []
    found: Sequence[Path] = [file.parent for file in path.glob("*/recipe.yaml") if _is_stage(file)]
    return _in_order(found)


def _in_order(folders: Sequence[Path]) -> list[Path]:
    begun = {folder: _begun(folder) for folder in folders}
    if all(begun.values()):
        waiting = sorted(folders, key=lambda folder: begun[folder])
    else:
        waiting = sorted(folders, key=lambda folder: (folder / "recipe.yaml").stat().st_mtime_ns)
    starts = {folder: _start_of(folder, folders) for folder in folders}
    ordered: list[Path] = []
    while waiting:
        ready = [folder for folder in waiting if starts[folder] not in waiting]
        ordered.append((ready or waiting)[0])  # recipes that name each other are of nobody's run
        waiting.remove(ordered[-1])
    return ordered


def _begun(folder: Path) -> str:
    """When its first launch was, in ISO 8601; empty where that is not recorded."""
    launches = (read_object(folder / "run.json") or {}).get("launches")
    first = launches[0] if isinstance(launches, list) and launches else None
    started = first.get("started") if isinstance(first, dict) else None
    return started if isinstance(started, str) else ""


def _start_of(folder: Path, stages: Sequence[Path]) -> Path | None:
    """The stage whose weights a stage starts from, wherever the pipeline's folder has been moved to."""
    recipe = read_yaml(folder / "recipe.yaml") or {}
    model = recipe.get("model")
    words = Path(str(model.get("path", ""))).parts if isinstance(model, dict) else ()
    pipeline = PurePosixPath(str(recipe.get("name", ""))).parts[:-1]
    for stage in stages:
        place = (*pipeline, stage.name)
        if stage != folder and any(words[at : at + len(place)] == place for at in range(len(words))):
            return stage
    return None


def _is_stage(file: Path) -> bool:
    pipeline, _, stage = str((read_yaml(file) or {}).get("name", "")).rpartition("/")
    return bool(pipeline) and stage == file.parent.name


def _object(file: Path, unreadable: list[str]) -> dict[str, Any] | None:
    found = read_object(file)
    if found is None and file.exists():
        unreadable.append(f"{file} cannot be read")
    return found


def _evaluations(path: Path, unreadable: list[str]) -> list[Evaluation]:
    try:
        return read_evaluations(path)
    except UserError as error:
        unreadable.append(str(error))
        return []
