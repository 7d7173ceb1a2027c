"""Read YAML into plain values, with the line of every key, and write it.

Reading and writing use one dialect: YAML 1.1 as PyYAML reads it, with three traps removed. `2e-5` is a number, `012`
and `1:30` are texts, a date is a text. Anchors, aliases, tags and keys that are not texts are refused: recipes share
values by `extends`.
"""

import math
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from olmoe_ft.recipe.document import Document, Place, merge
from olmoe_ft.recipe.errors import UserError
from olmoe_ft.recipe.wording import nearest
from olmoe_ft.shipped import recipe_names, shipped_recipe

FLOAT, INT, TIMESTAMP, MERGE = (f"tag:yaml.org,2002:{kind}" for kind in ("float", "int", "timestamp", "merge"))
FLOAT_PATTERN = re.compile(r"[-+]?((\d+\.\d*|\.\d+)([eE][-+]?\d+)?|\d+[eE][-+]?\d+|\.(inf|Inf|INF))$|\.(nan|NaN|NAN)$")
INT_PATTERN = re.compile(r"[-+]?(0|[1-9][\d_]{,30})$")  # Python refuses to convert thousands of digits


class _Loader(yaml.SafeLoader):
    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        event = self.peek_event()
        if isinstance(event, yaml.AliasEvent) or getattr(event, "tag", None) is not None:
            problem = "found an alias or a tag; write out the value, or share it with `extends`"
            raise yaml.MarkedYAMLError(problem=problem, problem_mark=event.start_mark)
        return super().compose_node(parent, index)


class _Dumper(yaml.SafeDumper):
    def ignore_aliases(self, data: Any) -> bool:
        return True


for _dialect in (_Loader, _Dumper):
    _dialect.yaml_implicit_resolvers = {
        first: [(tag, pattern) for tag, pattern in resolvers if tag not in (FLOAT, INT, TIMESTAMP, MERGE)]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }
    _dialect.add_implicit_resolver(FLOAT, FLOAT_PATTERN, list("-+0123456789."))
    _dialect.add_implicit_resolver(INT, INT_PATTERN, list("-+0123456789"))


def read_document(path: Path, chain: tuple[Path, ...] = ()) -> Document:
    """A YAML file, merged over the file that its `extends` names, if any. Paths in it are as they were written.

    Args:
        path: the file; `extends` inside it is relative to its folder, or names a recipe of the package.
        chain: the files that extend this one, outermost first.
    Raises:
        UserError: a file is missing, not readable, not YAML or not a mapping, has a key twice, or extends itself.
    """
    document = parse(read_text(path), str(path))
    return extended(document, path, (*chain, path)) if "extends" in document.values else document


def extended(document: Document, file: Path, chain: tuple[Path, ...]) -> Document:
    """A document without its `extends`, merged over the file that it names."""
    place, parent = document.place("extends"), document.values["extends"]
    own = document.only(document.values.keys() - {"extends"})
    if parent is None:
        return own
    return merge(read_parent(parent, place, file, chain), own)


def read_parent(parent: Any, place: Place, file: Path, chain: tuple[Path, ...]) -> Document:
    """The file named by an `extends` at `place` in `file`: relative to its folder, or a recipe of the package."""
    if not isinstance(parent, str) or not parent:
        raise UserError(f"{place}: extends: found {parent!r}; give the path of one YAML file, relative to this one")
    target = Path(os.path.normpath(file.parent / parent))
    if not os.path.isfile(target):
        if (shipped := shipped_recipe(parent)) is None:
            hint = _shipped_parent(parent)
            raise UserError(
                f"{place}: extends: {target}: there is no such file; the path is relative to {file.parent}/{hint}"
            )
        target = shipped
    if target.resolve() in (earlier.resolve() for earlier in chain):
        circle = " -> ".join(str(link) for link in (*chain, target))
        raise UserError(f"{place}: extends: the files extend each other in a circle: {circle}; remove one `extends`")
    return read_document(target, chain)


def _shipped_parent(parent: str) -> str:
    """What to write instead of a path that leads to no file but ends like that of a recipe of the package."""
    short = parent.rpartition("recipes/")[2].removesuffix(".yaml")
    if shipped_recipe(short) is not None:
        return f". To extend the recipe that comes with olmoe_ft, write `extends: {short}`"
    return nearest(short, recipe_names())


def parse_value(text: str) -> Any:
    """One YAML value, as in a file.

    Raises:
        ValueError: the text is not YAML; the message says why.
    """
    try:
        return yaml.load(text, _Loader)
    except yaml.YAMLError as error:
        raise ValueError(getattr(error, "problem", None) or "not readable") from None
    except RecursionError:
        raise ValueError("nested too deeply") from None


def dump_yaml(values: dict[str, Any], width: float = 120) -> str:
    """YAML text that this module reads back to the same values.

    Args:
        width: of a line; a longer text is folded.
    """
    return yaml.dump(values, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=width)


def inline_yaml(value: Any) -> str:
    """The text of one value on one line, for behind its key."""
    text = yaml.dump(value, Dumper=_Dumper, default_flow_style=True, allow_unicode=True, width=math.inf)
    return text.removesuffix("...\n").strip()


def read_text(path: Path) -> str:
    """The text of a file.

    Raises:
        UserError: it is missing, a folder, not UTF-8, or cannot be read.
    """
    if os.path.isdir(path):
        raise UserError(f"{path}: this is a folder; name a YAML file in it")
    try:
        return path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise UserError(f"{path}: there is no such file; check the path, which is relative to {Path.cwd()}") from None
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise UserError(f"{path}:{line}: not UTF-8 text; save the file as UTF-8") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); check its permissions") from None


def parse(
    text: str,
    file: str,
    loader: Callable[[str], yaml.SafeLoader] = _Loader,
    kind: str = "recipe",
    keys: str = "`name` and `stage`",
) -> Document:
    """The mapping in a text.

    Args:
        file: named in messages.
        loader: of the dialect.
        kind, keys: for messages, what the file is and the keys that it needs at least.
    Raises:
        UserError: it is not YAML or not a mapping, or has a key twice.
    """
    try:
        reader = loader(text)
        root = reader.get_single_node()
        if root is None:
            raise UserError(f"{file}:1: the file is empty; a {kind} needs at least {keys}")
        if not isinstance(root, yaml.MappingNode):
            raise UserError(
                f"{file}:{_line(root)}: this is not a {kind}; write `key: value` on each line, at least {keys}"
            )
        places: dict[str, Place] = {}
        _walk(root, "", file, places)
        return Document(reader.construct_document(root), places)
    except yaml.YAMLError as error:
        raise UserError(_syntax_message(error, text, file)) from None
    except RecursionError:
        raise UserError(
            f"{file}: lists or mappings are nested hundreds deep; a {kind} needs five levels, so remove the others"
        ) from None


def _walk(node: yaml.Node, key: str, file: str, places: dict[str, Place]) -> None:
    """Note the place of every key below a node, and refuse keys that appear twice or are not texts."""
    places.setdefault(key, Place(file, _line(node)))
    children: list[tuple[str, yaml.Node]] = []
    if isinstance(node, yaml.SequenceNode):
        children = [(str(index), item) for index, item in enumerate(node.value)]
    elif isinstance(node, yaml.MappingNode):
        seen: dict[str, int] = {}
        for name, value in node.value:
            if not isinstance(name, yaml.ScalarNode) or not name.tag.endswith(":str"):
                shown = name.value if isinstance(name, yaml.ScalarNode) else "a list or mapping"
                remedy = f'; write "{name.value}"' if isinstance(name, yaml.ScalarNode) else ""
                raise UserError(
                    f"{file}:{_line(name)}: found {shown} as a key; allowed: names, texts in quotes{remedy}"
                )
            if name.value in seen:
                lines = f"on line {seen[name.value]} and again on line {_line(name)}"
                raise UserError(f"{file}:{_line(name)}: found `{name.value}` {lines}; remove one of them")
            seen[name.value] = _line(name)
            children.append((name.value, value))
            places[f"{key}.{name.value}" if key else name.value] = Place(file, _line(name))
    for name, value in children:
        _walk(value, f"{key}.{name}" if key else name, file, places)


def _line(node: yaml.Node) -> int:
    return node.start_mark.line + 1


def _syntax_message(error: yaml.YAMLError, text: str, file: str) -> str:
    mark = getattr(error, "problem_mark", None)
    if mark is None:  # a character that YAML does not allow
        line = text[: getattr(error, "position", 0)].count("\n") + 1
        return f"{file}:{line}: found a character that YAML does not allow; remove it"
    lines = text.splitlines()
    if mark.line < len(lines) and "\t" in lines[mark.line][: mark.column + 1]:
        return f"{file}:{mark.line + 1}: found a tab; YAML allows spaces only, so replace it"
    problem = getattr(error, "problem", None) or "not readable"
    remedy = "check the indentation, colons and quotes around this line"
    return f"{file}:{mark.line + 1}: not valid YAML ({problem}); {remedy}"
