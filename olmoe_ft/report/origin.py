"""Where a run's weights come from: back through the runs that it started from, to the Hub or to random weights."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id

from olmoe_ft.checkpoints.folders import BASE_KEY
from olmoe_ft.checkpoints.run_checkpoints import read_object
from olmoe_ft.shipped import found, is_shipped_name
from olmoe_ft.training.files import read_yaml

OF_FILES = (".json", ".jsonl", ".csv", ".parquet", ".gz", ".yaml", ".txt", ".arrow")
OF_FOLDERS = ("runs", "data", "configs", "recipes", "checkpoints", "models")
IN_CACHE = re.compile(r"/models--([\w.-]+?)--([\w.-]+)/snapshots/[0-9a-f]{40}/?$")  # of huggingface_hub


@dataclass(frozen=True)
class Origin:
    """What was there before a run."""

    hub: str | None
    """The Hub name of the weights at the beginning; None where they are random or of a local folder."""
    random: bool
    stages: tuple[dict[str, Any], ...]
    """The recipes of the runs on the way, the oldest first; without the run itself."""
    name: str
    """The last part of a local path, or of the configuration of random weights."""

    @property
    def license(self) -> str | None:
        return LICENSES.get(self.hub or "")


LICENSES = dict.fromkeys(  # as their pages on the Hub say
    ("allenai/OLMoE-1B-7B-0924", "allenai/OLMoE-1B-7B-0125", "allenai/OLMoE-1B-7B-0125-Instruct"), "apache-2.0"
)


def origin_of(run: Path, recipe: dict[str, Any]) -> Origin:
    """The origin of a run; a run on the way that is not here any more ends the search."""
    stages: list[dict[str, Any]] = []
    place, seen = run, {run.resolve()}
    while True:
        model = recipe.get("model")
        model = model if isinstance(model, dict) else {}
        path = model.get("path")
        if not isinstance(path, str):
            config = model.get("config")
            name = Path(config).name if isinstance(config, str) else ""
            return Origin(None, bool(name), tuple(stages), name)
        folder = next((one for one in _places(path, place) if one.is_dir()), None)
        before = _run_at(folder) if folder is not None else None
        earlier = read_yaml(before / "recipe.yaml") if before is not None else None
        if before is None or earlier is None or before.resolve() in seen:
            hub = path if folder is None and is_hub_name(path) else in_cache(path)
            return Origin(hub, False, tuple(stages), Path(path).name)
        seen.add(before.resolve())
        recipe, place = earlier, before
        stages.insert(0, earlier)


def is_hub_name(name: str) -> bool:
    """Whether a name is that of somebody's repository rather than of a file or folder, by its form alone."""
    owner, slash, repository = name.partition("/")
    if not slash or not repository or name.endswith(OF_FILES) or owner in OF_FOLDERS or is_shipped_name(name):
        return False
    try:
        validate_repo_id(name)
    except HFValidationError:
        return False
    return True


def in_cache(path: str) -> str | None:
    """The Hub name of a folder in huggingface_hub's cache."""
    match = IN_CACHE.search(path)
    return f"{match[1]}/{match[2]}" if match else None


def base_on_hub(folder: Path) -> str | None:
    """The Hub name of an adapter's base; None where it is a local folder."""
    named = str((read_object(folder / "adapter_config.json") or {}).get(BASE_KEY, ""))
    return named if is_hub_name(named) and not Path(named).exists() else in_cache(named)


def network_of(folder: Path, recipe: dict[str, Any]) -> dict[str, Any]:
    """The configuration of the network: of a folder, of its adapter's base, or of the recipe; empty if unknown."""
    named = str((read_object(folder / "adapter_config.json") or {}).get(BASE_KEY, ""))
    model = recipe.get("model")
    config = model.get("config") if isinstance(model, dict) else None
    files = [folder / "config.json", folder.parent / "base" / "config.json"]
    files += [Path(named) / "config.json"] if named else []
    files += [Path(found(config))] if isinstance(config, str) else []
    return next(filter(None, map(read_object, files)), {})


def _places(path: str, run: Path) -> Iterator[Path]:
    """Where a path of a recipe may be: below the working folder, or below the folder that the run is in."""
    yield Path(path)
    for parent in run.resolve().parents:
        yield parent / path


def _run_at(folder: Path) -> Path | None:
    for place in (folder, folder.parent, folder.parent.parent):  # itself, its final/, one of its checkpoints
        if (place / "recipe.yaml").is_file():
            return place
    return None
