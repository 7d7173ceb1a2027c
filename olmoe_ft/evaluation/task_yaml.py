"""Read a task file without running anything: plain values with their lines, and functions by name.

The dialect is lm-eval's, which is YAML 1.1 with one tag, `!function`. Any other tag is refused, since PyYAML can make
Python objects of some, and so are aliases: task files share values by `include`.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from olmoe_ft.recipe import UserError
from olmoe_ft.recipe.document import Document
from olmoe_ft.recipe.yaml_file import parse, read_text

FUNCTION = "!function"

Problem = tuple[str, str]
"""A dotted key, and what is wrong with it."""


class Function(NamedTuple):
    """A function as a task file names it: `utils.score` is in a `utils.py` beside the file, or in a package."""

    name: str
    folder: Path

    def load(self) -> Callable[..., Any]:
        """The function, found as lm-eval finds it. This runs the module's code.

        Raises:
            ValueError: it cannot be found, or its module cannot be imported; the message says why.
        """
        from lm_eval.tasks._yaml_loader import _import_func_in_yml

        try:
            return _import_func_in_yml(self.name, self.folder)
        except Exception as error:  # whatever the user's module raises
            raise ValueError(f"{type(error).__name__}: {error}") from None


class _Loader(yaml.SafeLoader):
    def __init__(self, text: str, folder: Path) -> None:
        super().__init__(text)
        self.folder = folder

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        event = self.peek_event()
        tag = getattr(event, "tag", None)
        if isinstance(event, yaml.AliasEvent) or tag not in (None, FUNCTION):
            problem = (
                f"found {'an alias' if isinstance(event, yaml.AliasEvent) else f'the tag {tag}'}; allowed: {FUNCTION}; "
                "write out the value, or share it with `include`"
            )
            raise yaml.MarkedYAMLError(problem=problem, problem_mark=event.start_mark)
        if tag and not isinstance(event, yaml.ScalarEvent):
            problem = f"found a list or mapping behind {FUNCTION}; write `{FUNCTION} file.function`"
            raise yaml.MarkedYAMLError(problem=problem, problem_mark=event.start_mark)
        return super().compose_node(parent, index)


def _function(loader: _Loader, node: yaml.ScalarNode) -> Function:
    return Function(node.value, loader.folder)


_Loader.add_constructor(FUNCTION, _function)


def read_task(path: Path, chain: tuple[Path, ...] = ()) -> Document:
    """A task file, over the files that its `include` names.

    Args:
        path: the file; a path in its `include` is relative to its folder.
        chain: the files that include this one, outermost first.
    Raises:
        UserError: a file is missing, not YAML or not a mapping, has a key twice or a tag, or includes itself.
    """
    loader = partial(_Loader, folder=path.resolve().parent)
    own = parse(read_text(path), str(path), loader, "task file", "`task` and `doc_to_text`")
    chain = (*chain, path.resolve())
    merged = Document({}, {})
    for name in _included(own):
        target = path.parent / name
        if target.resolve() in chain:
            raise UserError(f"{own.place('include')}: include: {target} includes itself in the end; remove it")
        if not target.is_file():
            raise UserError(
                f"{own.place('include')}: include: {target}: there is no such file; the path is relative to "
                f"{path.parent}/"
            )
        merged = _over(read_task(target, chain), merged)
    return _over(own.only(own.values.keys() - {"include"}), merged)


def _included(task: Document) -> list[str]:
    names = task.values.get("include", [])
    listed = [names] if isinstance(names, str) else names
    if not isinstance(listed, list) or not all(isinstance(name, str) and name.isprintable() for name in listed):
        raise UserError(
            f"{task.place('include')}: include: found {names!r}; allowed: the path of a task file, or a list of paths"
        )
    return listed


def _over(upper: Document, lower: Document) -> Document:
    """Two files as lm-eval merges them: a key of the upper one replaces the lower one's, whole."""
    kept = lower.only(lower.values.keys() - upper.values.keys())
    return Document({**kept.values, **upper.values}, {**kept.places, **upper.places})


def with_functions(value: Any, problems: list[Problem], key: str = "") -> Any:
    """A value with each function loaded. One that cannot be is added to the problems, and replaced by `not_found`."""
    if isinstance(value, Function):
        try:
            return value.load()
        except ValueError as error:
            problems.append(
                (
                    key,
                    f"found `!function {value.name}`, which cannot be loaded ({error}); allowed: file.function of a "
                    f"file.py in {value.folder}, or the full name of an installed function",
                )
            )
            return not_found
    if isinstance(value, dict):
        return {name: with_functions(one, problems, f"{key}.{name}".lstrip(".")) for name, one in value.items()}
    if isinstance(value, list):
        return [with_functions(one, problems, f"{key}.{index}") for index, one in enumerate(value)]
    return value


def not_found(*arguments: Any, **named: Any) -> Any:
    """In the place of a function that cannot be loaded, so that the other keys can be checked."""
    raise AssertionError("a task with a missing function is refused before it is used")
