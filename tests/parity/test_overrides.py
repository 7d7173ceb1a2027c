"""Every method of a library that a class of ours overrides takes whatever the library may call it with.

mypy does not look into transformers, TRL and PEFT, whose annotations are too wide to work with: the model of a trainer
may be None or any module, `generate` takes no class of ours. With them it finds 86 errors, two of which are of
overrides. So signatures are compared here, in each class as it is built: the method of a mixin with the one that its
`super()` finds.
"""

import importlib
import inspect
import pkgutil
import re
from collections.abc import Iterator
from inspect import Parameter
from typing import Any

import pytest
import torch
from torch import nn

import olmoe_ft
from olmoe_ft.stages import STAGES
from olmoe_ft.training.trainers import trainer_class

POSITIONAL = (Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD)
OUR_OWN_CALLS = (nn.Module, torch.autograd.Function)  # torch gives their `forward` and `backward` what our caller gave


def is_ours(kind: type) -> bool:
    return kind.__module__.partition(".")[0] == "olmoe_ft"


def our_classes() -> list[type]:
    found = {}
    for module in pkgutil.walk_packages(olmoe_ft.__path__, "olmoe_ft."):
        if module.name.rpartition(".")[2] == "__main__":
            continue
        for kind in vars(importlib.import_module(module.name)).values():
            if isinstance(kind, type) and is_ours(kind):
                found[f"{kind.__module__}.{kind.__qualname__}"] = kind
    return [*found.values(), *map(trainer_class, STAGES)]


def methods(kind: type) -> Iterator[tuple[type, str]]:
    """Every method that a class of ours in its ancestry defines."""
    for owner in filter(is_ours, kind.__mro__):
        for name, value in vars(owner).items():
            if not name.startswith("__") and callable(found := getattr(owner, name)) and not isinstance(value, type):
                if not inspect.isbuiltin(found):  # what Python puts into an Enum
                    yield owner, name


def overridden(kind: type, owner: type, name: str) -> type | None:
    """The library's class whose method `owner` overrides in `kind`; not one that takes anything and passes it on."""
    behind = [base for base in kind.__mro__[kind.__mro__.index(owner) + 1 :] if name in vars(base)]
    if name in ("forward", "backward") and issubclass(kind, OUR_OWN_CALLS):
        return None
    return next((base for base in behind if not is_ours(base) and not passes_on(base, name)), None)


def passes_on(base: type, name: str) -> bool:
    return {one.kind for one in parameters(base, name)} == {Parameter.VAR_POSITIONAL, Parameter.VAR_KEYWORD}


def parameters(owner: type, name: str) -> list[Parameter]:
    found = list(inspect.signature(getattr(owner, name)).parameters.values())
    return found[1:] if inspect.isfunction(vars(owner)[name]) else found


def refused(ours: list[Parameter], theirs: list[Parameter]) -> list[str]:
    """The calls that the library's signature allows and ours does not."""
    named = {one.name: one for one in ours if one.kind not in (Parameter.VAR_POSITIONAL, Parameter.VAR_KEYWORD)}
    places = [one for one in ours if one.kind in POSITIONAL]
    kinds = {one.kind for one in ours}
    wrong = []
    for place, one in enumerate(theirs):
        if one.kind in (Parameter.VAR_POSITIONAL, Parameter.VAR_KEYWORD):
            if one.kind not in kinds:
                wrong.append(f"{one} is not taken")
            continue
        if one.kind in POSITIONAL and place < len(places) and places[place].name != one.name:
            wrong.append(f"argument {place + 1} is {places[place].name}, of the library {one.name}")
        if one.kind in POSITIONAL and place >= len(places) and Parameter.VAR_POSITIONAL not in kinds:
            wrong.append(f"{one.name} is not taken by its place")
        if one.kind != Parameter.POSITIONAL_ONLY and one.name not in named and Parameter.VAR_KEYWORD not in kinds:
            wrong.append(f"{one.name} is not taken by its name")
        if one.default is not Parameter.empty and one.name in named and named[one.name].default is Parameter.empty:
            wrong.append(f"{one.name} has no default")
    known = {one.name for one in theirs}
    wrong += [f"{one.name} is asked for" for one in named.values() if one.name not in known and _is_needed(one)]
    return wrong


def _is_needed(one: Parameter) -> bool:
    return one.default is Parameter.empty


CASES = {
    f"{owner.__name__}.{name} in {kind.__name__}": (owner, name, base)
    for kind in our_classes()
    for owner, name in methods(kind)
    if (base := overridden(kind, owner, name)) is not None
}


@pytest.mark.parametrize(("owner", "name", "base"), CASES.values(), ids=CASES)
def test_an_override_takes_what_the_library_gives(owner, name, base):
    assert refused(parameters(owner, name), parameters(base, name)) == []


def test_what_asks_its_super_has_one():
    """A library that renames a private method would leave ours uncalled, without a word."""
    lost = []
    for kind in our_classes():
        for owner, name in methods(kind):
            source = inspect.getsource(getattr(owner, name)) if inspect.isroutine(getattr(owner, name)) else ""
            asks = re.search(rf"super\(\)\.{name}\(", source)
            behind = kind.__mro__[kind.__mro__.index(owner) + 1 :]
            is_whole = not kind.__name__.endswith("Mixin")  # a mixin's super is in the class it is mixed into
            if asks and is_whole and not any(name in vars(base) for base in behind):
                lost.append(f"{owner.__name__}.{name}")
    assert lost == []


def signature(function: Any) -> list[Parameter]:
    return list(inspect.signature(function).parameters.values())


@pytest.mark.parametrize(
    ("ours", "theirs", "wrong"),
    [
        (lambda a, *rest, **more: 0, lambda a, b=1, *, c=2: 0, []),
        (lambda a, **more: 0, lambda a, b=1: 0, ["b is not taken by its place"]),
        (lambda a: 0, lambda a=1: 0, ["a has no default"]),
        (
            lambda b: 0,
            lambda a: 0,
            ["argument 1 is b, of the library a", "a is not taken by its name", "b is asked for"],
        ),
        (lambda a: 0, lambda a, *, c: 0, ["c is not taken by its name"]),
        (lambda a, d: 0, lambda a: 0, ["d is asked for"]),
        (lambda a: 0, lambda a, **more: 0, ["**more is not taken"]),
    ],
)
def test_what_counts_as_refused(ours, theirs, wrong):
    assert refused(signature(ours), signature(theirs)) == wrong


def test_there_are_overrides_of_each_library():
    libraries = {base.__module__.partition(".")[0] for _, _, base in CASES.values()}
    assert {"transformers", "trl", "torch"} <= libraries
