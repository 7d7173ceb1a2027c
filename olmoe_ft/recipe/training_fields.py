"""What TRL's configuration of a stage accepts (`SFTConfig`, `DPOConfig`, `KTOConfig`), read from its source.

Importing them would import torch.
"""

import ast
import math
import re
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

from olmoe_ft.stages import STAGES

BASES = (("transformers", "training_args.py", "TrainingArguments"), ("trl", "trainer/base_config.py", "_BaseConfig"))
ENUMERATIONS = {
    "SchedulerType": ("transformers", "trainer_utils.py"),
    "IntervalStrategy": ("transformers", "trainer_utils.py"),
    "SaveStrategy": ("transformers", "trainer_utils.py"),
    "OptimizerNames": ("transformers", "training_args.py"),
}
SCALARS = {"int": "a whole number", "float": "a number", "bool": "true or false", "str": "a text", "None": "null"}


@cache
def training_fields(stage: str) -> dict[str, str]:
    """Every field that a stage's trainer takes, with its annotation (`int`, `float | None`, ...).

    Raises:
        RuntimeError: trl or transformers is not installed, or its source is not laid out as expected.
    """
    fields: dict[str, str] = {}
    for package, file, name in (*BASES, _own(stage)):
        fields |= _class_fields(package, file, name)
    return fields


@cache
def default_of(stage: str, name: str) -> Any:
    """The value of a field that a recipe leaves out."""
    places = (_own(stage), *reversed(BASES))
    owner = next(_class(*place) for place in places if name in _annotated(_class(*place)))
    return _default(_annotated(owner)[name].value, owner)


def _default(value: ast.expr | None, owner: ast.ClassDef) -> Any:
    """The value of the expression for a field's default; `owner` is the class that has the field."""
    if isinstance(value, ast.Call):  # field(default=…) or field(default_factory=…)
        keywords = {keyword.arg: keyword.value for keyword in value.keywords}
        return _default(keywords.get("default", keywords.get("default_factory")), owner)
    if isinstance(value, ast.Lambda):
        return ast.literal_eval(value.body)
    if isinstance(value, ast.Name) and value.id == "list":
        return []
    if isinstance(value, ast.Name):  # a variable of the class; the last assignment is the one for a new torch
        assigned = [item for item in ast.walk(owner) if isinstance(item, ast.Assign)]
        value = next(item.value for item in reversed(assigned) if ast.unparse(item.targets[0]) == value.id)
    assert value is not None
    return ast.literal_eval(value)


def help_of(stage: str, name: str) -> str:
    """What a field does, in the words of the library that defines it; empty if it says nothing."""
    text = ""
    for place in (*BASES, _own(stage)):
        if (field := _annotated(_class(*place)).get(name)) is not None:
            found = _metadata(field.value).get("help")
            text = str(found.value) if isinstance(found, ast.Constant) else text
    return text


def allowed_scalars(annotation: str) -> tuple[str, ...]:
    """The scalar types that an annotation allows, in its order; empty if it allows other types too."""
    names = tuple(name.strip() for name in annotation.split("|"))
    return names if all(name in SCALARS for name in names) else ()


def fits(value: Any, annotation: str) -> bool:
    """Whether a value has an allowed type; fields that take more than scalars are left to TRL to check."""
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


class Parameter(NamedTuple):
    """A parameter of a function."""

    annotation: str
    """As written in the source; "float" if there is none."""
    needed: bool
    """Whether it has no default."""


@cache
def parameters(package: str, file: str, name: str) -> dict[str, Parameter]:
    """What a function, or the `__init__` of a class, takes by name (not what it takes as `**kwargs`)."""
    node: ast.AST = _definition(package, file, name)
    if isinstance(node, ast.ClassDef):
        node = next(item for item in node.body if isinstance(item, ast.FunctionDef) and item.name == "__init__")
    assert isinstance(node, ast.FunctionDef)
    names, defaults = node.args.args, len(node.args.defaults)
    return {
        item.arg: Parameter(ast.unparse(item.annotation) if item.annotation else "float", place < len(names) - defaults)
        for place, item in enumerate(names)
    }


@cache
def dictionary(package: str, file: str, name: str) -> dict[str, str]:
    """A dictionary of a module, with keys and values as written in the source: `SchedulerType.LINEAR` to a function."""
    for node in _statements(_source(package, file)):
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == name and isinstance(node.value, ast.Dict):
            keys = (ast.unparse(key) for key in node.value.keys if key is not None)
            return dict(zip(keys, map(ast.unparse, node.value.values), strict=True))
    raise RuntimeError(
        f"{file} of {package} does not define {name}; install the version of {package} that olmoe_ft pins"
    )


def members(enumeration: str) -> dict[str, str]:
    """The values of an enumeration in ENUMERATIONS by their names."""
    items = _class(*ENUMERATIONS[enumeration], enumeration).body
    return {
        ast.unparse(item.targets[0]): item.value.value
        for item in items
        if isinstance(item, ast.Assign) and isinstance(item.value, ast.Constant) and isinstance(item.value.value, str)
    }


@cache
def training_choices(stage: str) -> dict[str, tuple[str, ...]]:
    """The values of the fields that take one of a few names: of an enumeration, or as the field's own metadata or help
    text list them."""
    found: dict[str, tuple[str, ...]] = {}
    for place in (*BASES, _own(stage)):
        for name, item in _annotated(_class(*place)).items():
            kinds = {kind.strip() for kind in ast.unparse(item.annotation).split("|")} & ENUMERATIONS.keys()
            names = [value for kind in kinds for value in members(kind).values()] or _listed(item.value)
            if names:
                found[name] = tuple(names)
    return found


def _own(stage: str) -> tuple[str, str, str]:
    """Where the configuration of a stage is: package, file and class."""
    kind = STAGES[stage]
    return "trl", f"trainer/{kind.trl.lower()}_config.py", kind.config


def _class_fields(package: str, file: str, class_name: str) -> dict[str, str]:
    fields = _annotated(_class(package, file, class_name))
    return {name: ast.unparse(item.annotation) for name, item in fields.items()}


def _class(package: str, file: str, name: str) -> ast.ClassDef:
    node = _definition(package, file, name)
    assert isinstance(node, ast.ClassDef)
    return node


@cache
def _definition(package: str, file: str, name: str) -> ast.ClassDef | ast.FunctionDef:
    source = _source(package, file)
    for node in _statements(source):
        if isinstance(node, ast.ClassDef | ast.FunctionDef) and node.name == name:
            return node
    raise RuntimeError(f"{source} does not define {name}; install the version of {package} that olmoe_ft pins")


def _source(package: str, file: str) -> Path:
    spec = find_spec(package)  # of a top-level package: finds the folder, imports nothing
    if spec is None or spec.origin is None:
        raise RuntimeError(f"{package} is not installed; install olmoe_ft with its dependencies")
    return Path(spec.origin).parent / file


@cache
def _statements(source: Path) -> list[ast.stmt]:
    return ast.parse(source.read_text(encoding="utf-8")).body


def _annotated(node: ast.ClassDef) -> dict[str, ast.AnnAssign]:
    fields = [item for item in node.body if isinstance(item, ast.AnnAssign)]
    return {item.target.id: item for item in fields if isinstance(item.target, ast.Name)}


def _listed(field: ast.expr | None) -> list[str]:
    """The names in a `field(metadata={"choices": [...]})`, or in its help after "Possible values are"."""
    metadata = _metadata(field)
    if isinstance(choices := metadata.get("choices"), ast.List):
        return list(ast.literal_eval(choices))
    text = ast.unparse(metadata.get("help", ast.Constant("")))
    possible = text.partition("Possible values are")[2].partition(". ")[0]
    return re.findall(r"'([a-z_]+)'", possible)


def _metadata(field: ast.expr | None) -> dict[str, ast.expr]:
    """The items of a `field(metadata={...})`."""
    for keyword in field.keywords if isinstance(field, ast.Call) else ():
        if keyword.arg == "metadata" and isinstance(keyword.value, ast.Dict):
            entries = zip(keyword.value.keys, keyword.value.values, strict=True)
            return {str(key.value): value for key, value in entries if isinstance(key, ast.Constant)}
    return {}
