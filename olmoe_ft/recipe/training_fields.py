"""What TRL's `SFTConfig` and `DPOConfig` accept, read from their source: importing them would import torch."""

import ast
import math
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

Stage = Literal["sft", "dpo"]

CONFIG_NAMES: dict[Stage, str] = {"sft": "SFTConfig", "dpo": "DPOConfig"}
BASES = (("transformers", "training_args.py", "TrainingArguments"), ("trl", "trainer/base_config.py", "_BaseConfig"))
SCALARS = {"int": "a whole number", "float": "a number", "bool": "true or false", "str": "a text", "None": "null"}


@cache
def training_fields(stage: Stage) -> dict[str, str]:
    """Every field a stage's trainer takes, from its name to its annotation (`int`, `float | None`, ...).

    Raises:
        RuntimeError: trl or transformers is not installed, or its source has another shape than expected.
    """
    own = ("trl", f"trainer/{stage}_config.py", CONFIG_NAMES[stage])
    fields: dict[str, str] = {}
    for package, file, name in (*BASES, own):
        fields |= _class_fields(package, file, name)
    return fields


def allowed_scalars(annotation: str) -> tuple[str, ...]:
    """The scalar types that an annotation allows, in its order; nothing where it allows other types too."""
    names = tuple(name.strip() for name in annotation.split("|"))
    return names if all(name in SCALARS for name in names) else ()


def fits(value: Any, annotation: str) -> bool:
    """Whether a value may be given for a field; what is more than scalars is left to TRL to judge."""
    allowed = allowed_scalars(annotation)
    match value:
        case bool():
            kinds = {"bool"}
        case int():
            kinds = {"int", "float"}
        case float():
            kinds = {"float"} if math.isfinite(value) else set()
        case _:
            kinds = {"None" if value is None else type(value).__name__}
    return not allowed or not kinds.isdisjoint(allowed)


def accepts_null(annotation: str) -> bool:
    """Whether null is a value of a field (`max_length: null` truncates nothing) and not just its absence."""
    return "None" in (name.strip() for name in annotation.split("|"))


@cache
def _class_fields(package: str, file: str, class_name: str) -> dict[str, str]:
    spec = find_spec(package)  # of a top-level package: finds the folder, imports nothing
    if spec is None or spec.origin is None:
        raise RuntimeError(f"{package} is not installed; run `make setup`")
    source = Path(spec.origin).parent / file
    for node in ast.parse(source.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ClassDef) and node.name == class_name:
            return dict(_annotated(node))
    raise RuntimeError(f"{source} does not define {class_name}; install the pinned version of {package}")


def _annotated(node: ast.ClassDef) -> list[tuple[str, str]]:
    return [
        (item.target.id, ast.unparse(item.annotation))
        for item in node.body
        if isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name)
    ]
