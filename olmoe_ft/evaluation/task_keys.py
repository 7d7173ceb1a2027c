"""What can be wrong in the keys and values of a task file, before its rows are read.

lm-eval ignores some of it, as a `process_results` that lacks its `!function`, and ends with a traceback on the rest.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields
from typing import Any

from olmoe_ft.data.rows import shown
from olmoe_ft.evaluation.task_yaml import Function
from olmoe_ft.reasons import one_line
from olmoe_ft.recipe.wording import nearest

Problem = tuple[str, str]
"""A dotted key, and what is wrong with it."""
NAME = re.compile(r"[\w.-]+")
TEMPLATES = ("doc_to_text", "doc_to_target", "doc_to_choice", "description", "gen_prefix")
SPLITS = ("training_split", "validation_split", "test_split", "fewshot_split")

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
    yield from _shots(values)
    yield from _generation(values)
    yield from _templates(values, "")
    yield from _metrics(values)
    yield from _filters(values)


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


def are_choices(found: Any) -> bool:
    """Whether a value is what lm-eval can offer as choices."""
    return isinstance(found, list) and bool(found) and all(isinstance(one, str) and one for one in found)


def _shots(values: Mapping[str, Any]) -> Iterator[Problem]:
    """Worked examples that would be questions of the test: lm-eval draws them there where it knows no other place."""
    from lm_eval.api.samplers import SAMPLER_REGISTRY

    config = values.get("fewshot_config") or {}
    if not isinstance(config, dict):
        return
    places = [values.get(key) for key in ("fewshot_split", "training_split", "validation_split")]
    if values.get("num_fewshot") and not any([*places, config.get("samples"), config.get("split")]):
        yield (
            "num_fewshot",
            "the worked examples would be questions of the test itself; name their `fewshot_split`, or write them in "
            "`fewshot_config: {samples: [...]}`",
        )
    if isinstance(sampler := config.get("sampler", "default"), str) and sampler not in SAMPLER_REGISTRY:
        yield "fewshot_config.sampler", f"found {shown(sampler)}; allowed: {', '.join(SAMPLER_REGISTRY)}"


def _generation(values: Mapping[str, Any]) -> Iterator[Problem]:
    settings = values.get("generation_kwargs")
    if not isinstance(settings, dict):
        return
    until = settings.get("until", [])
    if not isinstance(until, str) and not (isinstance(until, list) and all(isinstance(one, str) for one in until)):
        yield "generation_kwargs.until", f"found {shown(until)}; allowed: a list of texts at which an output ends"
    most = settings.get("max_gen_toks", 1)
    if not isinstance(most, int) or isinstance(most, bool) or most < 1:
        yield "generation_kwargs.max_gen_toks", f"found {shown(most)}; allowed: a whole number of tokens, at least 1"


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


def _metrics(values: Mapping[str, Any]) -> Iterator[Problem]:
    import lm_eval.api.metrics  # noqa: F401 - fills the registries
    from lm_eval.api.registry import aggregation_registry, metric_agg_registry, metric_registry

    own = values.get("process_results") is not None
    for key, entry in _entries(values, "metric_list"):
        if not isinstance(entry, dict) or "metric" not in entry:
            yield key, f"found {shown(entry)}; allowed: a mapping with `metric`"
            continue
        metric, how = entry["metric"], entry.get("aggregation")
        if isinstance(metric, str):
            if not own and metric not in metric_registry and entry.get("hf_evaluate") is not True:
                known = sorted(metric_registry)
                allowed = f"allowed: {', '.join(known)}; with a `process_results` of your own any name"
                yield f"{key}.metric", f"found {metric!r}{nearest(metric, known)}; {allowed}"
            elif how is None and metric not in metric_agg_registry:
                yield key, f"`{metric}` needs its `aggregation`, such as `aggregation: mean`"
        elif not callable(metric):
            yield f"{key}.metric", f"found {shown(metric)}; allowed: a name, or `!function file.function`"
        if isinstance(how, str) and how not in aggregation_registry:
            known = sorted(aggregation_registry)
            yield f"{key}.aggregation", f"found {how!r}{nearest(how, known)}; allowed: {', '.join(known)}"


def _filters(values: Mapping[str, Any]) -> Iterator[Problem]:
    import lm_eval.filters  # noqa: F401 - fills the registry
    from lm_eval.api.registry import filter_registry, get_filter

    for key, pipeline in _entries(values, "filter_list"):
        steps = pipeline.get("filter") if isinstance(pipeline, dict) else None
        if not isinstance(steps, list) or not isinstance(pipeline.get("name"), str):
            yield key, f"found {shown(pipeline)}; allowed: a mapping with `name` and `filter`, a list"
            continue
        for index, step in enumerate(steps):
            where, name = f"{key}.filter.{index}", step.get("function") if isinstance(step, dict) else None
            if not isinstance(name, str) and not callable(name):
                yield where, f"found {shown(step)}; allowed: a mapping with `function`"
            elif isinstance(name, str) and name not in filter_registry:
                known = sorted(filter_registry)
                yield f"{where}.function", f"found {name!r}{nearest(name, known)}; allowed: {', '.join(known)}"
            elif name is not not_found:
                try:
                    get_filter(name)(**{option: value for option, value in step.items() if option != "function"})
                except Exception as error:  # unknown options, or values that the filter refuses
                    yield where, f"the filter refuses its options ({one_line(error)}); correct them"


def _entries(values: Mapping[str, Any], key: str) -> list[tuple[str, Any]]:
    entries = values.get(key)
    return [(f"{key}.{index}", entry) for index, entry in enumerate(entries)] if isinstance(entries, list) else []
