"""What TRL's `SFTConfig` and `DPOConfig` accept, read from their source: importing them would import torch."""

import ast
import math
import re
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

Stage = Literal["sft", "dpo"]

CONFIG_NAMES: dict[Stage, str] = {"sft": "SFTConfig", "dpo": "DPOConfig"}
BASES = (("transformers", "training_args.py", "TrainingArguments"), ("trl", "trainer/base_config.py", "_BaseConfig"))
ENUMERATIONS = {
    "SchedulerType": ("transformers", "trainer_utils.py"),
    "IntervalStrategy": ("transformers", "trainer_utils.py"),
    "SaveStrategy": ("transformers", "trainer_utils.py"),
    "OptimizerNames": ("transformers", "training_args.py"),
}
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


def default_of(stage: Stage, name: str) -> Any:
    """The value of a field of the stage's own configuration that a recipe leaves out."""
    value = _annotated(_class("trl", f"trainer/{stage}_config.py", CONFIG_NAMES[stage]))[name].value
    if isinstance(value, ast.Call):  # field(default=…)
        value = next(keyword.value for keyword in value.keywords if keyword.arg == "default")
    assert value is not None
    return ast.literal_eval(value)


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
def training_choices(stage: Stage) -> dict[str, tuple[str, ...]]:
    """The values of the fields that take one of a few names: of an enumeration, or as the field's own metadata or help
    text list them."""
    own = ("trl", f"trainer/{stage}_config.py", CONFIG_NAMES[stage])
    found: dict[str, tuple[str, ...]] = {}
    for place in (*BASES, own):
        for name, item in _annotated(_class(*place)).items():
            kinds = {kind.strip() for kind in ast.unparse(item.annotation).split("|")} & ENUMERATIONS.keys()
            names = [value for kind in kinds for value in _members(kind)] or _listed(item.value)
            if names:
                found[name] = tuple(names)
    return found


def _class_fields(package: str, file: str, class_name: str) -> dict[str, str]:
    fields = _annotated(_class(package, file, class_name))
    return {name: ast.unparse(item.annotation) for name, item in fields.items()}


@cache
def _class(package: str, file: str, name: str) -> ast.ClassDef:
    spec = find_spec(package)  # of a top-level package: finds the folder, imports nothing
    if spec is None or spec.origin is None:
        raise RuntimeError(f"{package} is not installed; run `make setup`")
    source = Path(spec.origin).parent / file
    for node in _statements(source):
        if isinstance(node, ast.ClassDef) and node.name == name:
            return node
    raise RuntimeError(f"{source} does not define {name}; install the pinned version of {package}")


@cache
def _statements(source: Path) -> list[ast.stmt]:
    return ast.parse(source.read_text(encoding="utf-8")).body


def _annotated(node: ast.ClassDef) -> dict[str, ast.AnnAssign]:
    fields = [item for item in node.body if isinstance(item, ast.AnnAssign)]
    return {item.target.id: item for item in fields if isinstance(item.target, ast.Name)}


def _members(enumeration: str) -> list[str]:
    items = [item for item in _class(*ENUMERATIONS[enumeration], enumeration).body if isinstance(item, ast.Assign)]
    return [item.value.value for item in items if isinstance(item.value, ast.Constant)]  # type: ignore[misc]


def _listed(field: ast.expr | None) -> list[str]:
    """The names in a `field(metadata={"choices": [...]})`, or in its help after "Possible values are"."""
    for keyword in field.keywords if isinstance(field, ast.Call) else ():
        if keyword.arg == "metadata" and isinstance(keyword.value, ast.Dict):
            entries = zip(keyword.value.keys, keyword.value.values, strict=True)
            metadata = {key.value: value for key, value in entries if isinstance(key, ast.Constant)}
            if isinstance(choices := metadata.get("choices"), ast.List):
                return list(ast.literal_eval(choices))
            text = ast.unparse(metadata.get("help", ast.Constant("")))
            possible = text.partition("Possible values are")[2].partition(". ")[0]
            return re.findall(r"'([a-z_]+)'", possible)
    return []
