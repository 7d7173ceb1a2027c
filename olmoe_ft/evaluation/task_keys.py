"""What can be wrong in the keys and values of a task file, before its rows are read.

lm-eval ignores some of it, as a `process_results` that lacks its `!function`, and ends with a traceback on the rest.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields
from typing import Any

from olmoe_ft.data.rows import shown
from olmoe_ft.evaluation.task_scoring import filter_problems, generation_problems, metric_problems
from olmoe_ft.evaluation.task_shots import shot_problems
from olmoe_ft.evaluation.task_templates import are_choices
from olmoe_ft.evaluation.task_yaml import Problem
from olmoe_ft.reasons import one_line
from olmoe_ft.recipe.wording import nearest

NAME = re.compile(r"[\w.-]+")
TEMPLATES = ("doc_to_text", "doc_to_target", "doc_to_choice", "description", "gen_prefix")

# lm-eval's annotations, where its code accepts something else.
EXACT = {
    "process_results": "Callable | None",
    "filter_list": "list | None",
    "doc_to_text": "Callable | str | int | None",
    "doc_to_target": "Callable | str | int | list | None",
    "doc_to_image": "Callable | str | list | None",
    "doc_to_audio": "Callable | str | list | None",
    "doc_to_decontamination_query": "Callable | str | None",
}
KINDS: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "Callable": ("`!function file.function`", callable),
    "str": ("text", lambda value: isinstance(value, str)),
    "OutputType": ("text", lambda value: isinstance(value, str)),
    "dict": ("a mapping", lambda value: isinstance(value, dict)),
    "FewshotConfig": ("a mapping", lambda value: isinstance(value, dict)),
    "list": ("a list", lambda value: isinstance(value, list)),
    "int": ("a whole number", lambda value: isinstance(value, int) and not isinstance(value, bool)),
    "bool": ("true or false", lambda value: isinstance(value, bool)),
    "None": ("null", lambda value: value is None),
}


def key_problems(values: Mapping[str, Any]) -> Iterator[Problem]:
    """All that is wrong with the keys of a task, whose functions are loaded."""
    from lm_eval.config.task import FewshotConfig, TaskConfig

    name = values.get("task")
    if "group" in values or isinstance(name, list):
        yield "task", "this is a group of tasks; name its tasks one by one"
        return
    if "class" in values:
        yield (
            "class",
            "a task that is a Python class cannot be checked; write it as keys, with a !function where needed",
        )
        return
    if not isinstance(name, str) or not NAME.fullmatch(name):
        yield "task", f"found {shown(name)}; allowed: a name of letters, digits, `_`, `-` and `.`"
    yield from _fields(values, TaskConfig, "")
    if isinstance(shots := values.get("fewshot_config"), dict):
        yield from _fields(shots, FewshotConfig, "fewshot_config.")
    yield from _required(values)
    yield from shot_problems(values)
    yield from generation_problems(values)
    yield from _templates(values, "")
    yield from metric_problems(values)
    yield from filter_problems(values)


def _fields(values: Mapping[str, Any], config: Any, before: str) -> Iterator[Problem]:
    """Unknown keys, and values of a wrong type."""
    known = [field.name for field in fields(config)]
    for key, value in values.items():
        if key not in known:
            yield f"{before}{key}", f"lm-eval has no such key{nearest(key, known)}; correct or remove it"
        elif wrong := _wrong_kind(value, (EXACT if not before else {}).get(key) or config.__annotations__[key]):
            yield f"{before}{key}", wrong


def _wrong_kind(value: Any, annotation: str) -> str:
    """A message if a value is of none of the types in an annotation such as `Callable[..., str] | None`."""
    while annotation != (annotation := re.sub(r"\[[^\[\]]*\]", "", annotation)):
        pass
    kinds = [KINDS[name.strip()] for name in annotation.split("|")]
    if any(fits(value) for _, fits in kinds):
        return ""
    return f"found {shown(value)}; allowed: {', '.join(name for name, _ in kinds if name != 'null')}"


def _required(values: Mapping[str, Any]) -> Iterator[Problem]:
    from lm_eval.api.instance import OutputType

    allowed = OutputType.__args__
    if (kind := values.get("output_type", "generate_until")) not in allowed:
        yield "output_type", f"found {shown(kind)}; allowed: {', '.join(allowed)}"
    needed = ["doc_to_text", "doc_to_target", *(["doc_to_choice"] if kind == "multiple_choice" else [])]
    for key in needed:
        if values.get(key) is None:
            yield key, "is missing; allowed: a key of the rows, a template such as `{{question}}`, a !function"
    if isinstance(repeats := values.get("repeats"), int) and repeats < 1:
        yield "repeats", f"found {repeats}; allowed: 1 or more outputs for each question"
    if values.get("use_prompt") is not None:
        yield "use_prompt", "prompts of promptsource are not used here; write `doc_to_text` and `doc_to_target`"
    choices = values.get("doc_to_choice")
    if isinstance(choices, list | dict) and not are_choices(
        list(choices.values() if isinstance(choices, dict) else choices)
    ):
        yield "doc_to_choice", f"found {shown(choices)}; allowed: a list of texts, none of them empty"
    if not values.get("dataset_path") and values.get("custom_dataset") is None:
        yield "dataset_path", "is missing; write `dataset_path: json` for a file of yours, or the name of a dataset"
    metadata, options = values.get("metadata"), values.get("dataset_kwargs")
    if isinstance(metadata, dict) and isinstance(options, dict) and (both := sorted(metadata.keys() & options.keys())):
        yield "metadata", f"found {', '.join(both)}, which `dataset_kwargs` has too; remove them here"
    if values.get("test_split") is None and values.get("validation_split") is None:
        yield "test_split", "is missing; name the split that has the questions, such as `test_split: test`"


def _templates(values: Mapping[str, Any], before: str) -> Iterator[Problem]:
    from jinja2 import TemplateError
    from lm_eval.utils import env

    for key in TEMPLATES:
        if isinstance(text := values.get(key), str):
            try:
                env.from_string(text)
            except TemplateError as error:
                yield f"{before}{key}", f"is not a Jinja template ({one_line(error)}); correct it"
    if not before and isinstance(shots := values.get("fewshot_config"), dict):
        yield from _templates(shots, "fewshot_config.")
