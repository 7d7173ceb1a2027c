"""The recipes that come with the package: list them, and copy one to start from."""

import os
import re
from pathlib import Path
from typing import NamedTuple

import yaml

from olmoe_ft.recipe.commented import commented
from olmoe_ft.recipe.errors import UserError
from olmoe_ft.recipe.wording import nearest
from olmoe_ft.recipe.yaml_file import read_document
from olmoe_ft.shipped import FILES, recipe_names, shipped_recipe

LAUNCH = re.compile(r"--config_file configs/accelerate/(\S+)\.yaml --num_processes (\d+)")


class Entry(NamedTuple):
    """A recipe of the package, as `olmoe-ft recipes` lists it."""

    name: str
    stage: str
    where: str
    description: str


def entries() -> list[Entry]:
    """Every recipe of the package. The launch line in its header says where it runs; without one it runs on a CPU."""
    return [_entry(name) for name in recipe_names()]


def config_names() -> list[str]:
    """Every machine shape, network and job of the package, by its path without the ending."""
    return sorted(str(file.with_suffix("").relative_to(FILES)) for file in _configs())


def copy(name: str, to: str | None = None) -> list[Path]:
    """Copy a recipe of the package into one file, or a configuration together with the files that it names.

    Args:
        to: the new file of a recipe, by default named after its run, in the working folder. A configuration keeps its
            path, because recipes, launch lines and accelerate's configurations name it.
    Returns:
        the files that were written.
    Raises:
        UserError: no recipe or configuration has this name, or a file would be overwritten or cannot be written.
    """
    for config in _configs():
        path = config.relative_to(FILES)
        if name in (str(path), str(path.with_suffix(""))):
            if to is not None:
                raise UserError(f"--to {to}: {path} keeps its path, because other files name it; leave out --to")
            return _write({**_deepspeed_file(config), path: config.read_text(encoding="utf-8")})
    if (file := shipped_recipe(name)) is None:
        near = nearest(name, [*recipe_names(), *config_names()])
        raise UserError(
            f"{name}: olmoe_ft has no such recipe or configuration{near}; `olmoe-ft recipes` lists them all"
        )
    entry = _entry(str(file.relative_to(FILES / "recipes").with_suffix("")))
    target = to if to is not None else f"{read_document(file).values['name']}.yaml"
    return _write({Path(target): commented(file, f"{entry.name}: {entry.description}")})


def _entry(name: str) -> Entry:
    file = FILES / "recipes" / f"{name}.yaml"
    head: list[str] = []
    for line in file.read_text(encoding="utf-8").splitlines()[1:]:  # after the line that names the schema
        if not line.startswith("#"):
            break
        head.append(line.removeprefix("#").strip())
    text = " ".join(head)
    launch = LAUNCH.search(text)
    where = f"{launch[2]} GPUs ({launch[1]})" if launch else "a CPU"
    return Entry(name, read_document(file).values["stage"], where, re.split(r"(?<=[.?])\s", text)[0])


def _configs() -> list[Path]:
    kinds = ("accelerate/*.yaml", "model/*.json", "slurm/*.sbatch")
    return [file for kind in kinds for file in (FILES / "configs").glob(kind)]


def _deepspeed_file(config: Path) -> dict[Path, str]:
    """The DeepSpeed file that an accelerate configuration names, which accelerate looks for from the working folder.

    Empty if it names none, or if the same file is there already.
    """
    if config.suffix != ".yaml":
        return {}
    path = yaml.safe_load(config.read_text(encoding="utf-8")).get("deepspeed_config", {}).get("deepspeed_config_file")
    if path is None:
        return {}
    text = (FILES / path).read_bytes().decode()
    return {} if os.path.isfile(path) and Path(path).read_bytes() == text.encode() else {Path(path): text}


def _write(files: dict[Path, str]) -> list[Path]:
    if there := [str(file) for file in files if os.path.lexists(file)]:
        raise UserError(f"{', '.join(there)}: the file exists already; move it away, or name another one with --to")
    for file, text in files.items():
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            with file.open("x", encoding="utf-8") as stream:
                stream.write(text)
        except OSError as error:
            raise UserError(f"{file}: cannot be written ({error.strerror}); choose another folder") from None
    return [*files]
