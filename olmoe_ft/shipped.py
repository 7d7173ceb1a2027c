"""Files that come with the package besides its code: recipes, configurations, the data of the tiny skills.

In a checkout these folders are beside the package. In a wheel they are inside it, in `files/`, where pyproject.toml
puts them. A shipped file is named by its path in the repository: `configs/accelerate/cpu.yaml`.
"""

import os
from functools import cache
from pathlib import Path

PACKAGE = Path(__file__).parent
CHECKOUT = not (PACKAGE / "files").exists()
FILES = PACKAGE.parent if CHECKOUT else PACKAGE / "files"
FOLDERS = ("recipes", "configs", "data/skills")


def is_shipped_name(name: str) -> bool:
    """Whether a path could be that of a shipped file or folder."""
    return f"{os.path.normpath(name)}/".startswith(tuple(f"{folder}/" for folder in FOLDERS))


def found(name: str) -> str:
    """The path itself if it exists, otherwise the shipped file of that name if there is one, otherwise the path."""
    if not os.path.exists(name) and is_shipped_name(name):
        shipped = os.path.join(FILES, os.path.normpath(name))
        return shipped if os.path.exists(shipped) else name
    return name


def shipped_name(path: str) -> str:
    """The path of a shipped file in the repository, wherever the package is installed; other paths unchanged."""
    name = path.removeprefix(f"{FILES}/")
    return name if name != path and is_shipped_name(name) else path


@cache
def recipe_names() -> list[str]:
    """Every shipped recipe: its path below `recipes/` without `.yaml`, such as `tiny/sft`."""
    folder = FILES / "recipes"
    return sorted(str(file.relative_to(folder).with_suffix("")) for file in folder.rglob("*.yaml"))


def shipped_recipe(name: str) -> Path | None:
    """The file of a shipped recipe; its name may be given with or without `recipes/` and `.yaml`."""
    short = os.path.normpath(name).removeprefix("recipes/").removesuffix(".yaml")
    return FILES / "recipes" / f"{short}.yaml" if short in recipe_names() else None
