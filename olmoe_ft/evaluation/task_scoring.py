"""What can be wrong in how a task gets and marks outputs: `generation_kwargs`, `metric_list`, `filter_list`."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from olmoe_ft.data.rows import shown
from olmoe_ft.evaluation.task_yaml import Problem, not_found
from olmoe_ft.reasons import one_line
from olmoe_ft.recipe.wording import nearest

LENGTHS = ("max_gen_toks", "max_new_tokens", "max_tokens", "max_completion_tokens")  # lm-eval takes them for the same
GENERATION: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "until": (
        "a text at which an output ends, or a list of such texts, none of them empty",
        lambda value: all(isinstance(one, str) and one for one in (value if isinstance(value, list) else [value])),
    ),
    **dict.fromkeys(
        LENGTHS,
        ("a whole number of tokens, at least 1", lambda value: type(value) is int and value >= 1),
    ),
    "do_sample": ("true or false", lambda value: isinstance(value, bool)),
    "temperature": (
        "a number, 0 or more",
        lambda value: type(value) in (int, float) and 0 <= value < float("inf"),
    ),
    "top_p": ("a number above 0, up to 1", lambda value: type(value) in (int, float) and 0 < value <= 1),
}

# What lm-eval's own `process_results` computes (lm_eval/api/task.py, ConfigurableTask); it leaves out other metrics.
COMPUTED = {
    "loglikelihood": ("acc", "perplexity"),
    "loglikelihood_rolling": ("word_perplexity", "byte_perplexity", "bits_per_byte"),
    "multiple_choice": (
        "acc",
        "acc_norm",
        "acc_bytes",
        "acc_mutual_info",
        "exact_match",
        "f1",
        "mcc",
        "brier_score",
        "likelihood",
    ),
}
# An output of `generate_until` is put to every metric; these are of probabilities, or compute nothing.
NOT_OF_TEXT = {name for names in COMPUTED.values() for name in names} - {"exact_match", "mcc"} | {"acc_all", "bypass"}


def generation_problems(values: Mapping[str, Any]) -> Iterator[Problem]:
    settings = values.get("generation_kwargs")
    if not isinstance(settings, dict):
        return
    for key, value in settings.items():
        if key not in GENERATION:
            known = list(GENERATION)
            yield f"generation_kwargs.{key}", f"is unknown{nearest(str(key), known)}; allowed: {', '.join(known)}"
            continue
        allowed, fits = GENERATION[key]
        if not fits(value):
            yield f"generation_kwargs.{key}", f"found {shown(value)}; allowed: {allowed}"
    if len(lengths := [key for key in LENGTHS if key in settings]) > 1:
        yield "generation_kwargs", f"found {', '.join(lengths)}, which mean the same; keep one of them"


def metric_problems(values: Mapping[str, Any]) -> Iterator[Problem]:
    from lm_eval.api.registry import aggregation_registry, metric_agg_registry

    if values.get("metric_list") == []:
        yield "metric_list", "found no metric; name one, or remove the key"
    kind = values.get("output_type", "generate_until")
    for key, entry in _entries(values, "metric_list"):
        if not isinstance(entry, dict) or "metric" not in entry:
            yield key, f"found {shown(entry)}; allowed: a mapping with `metric`"
            continue
        metric, how = entry["metric"], entry.get("aggregation")
        if not isinstance(metric, str) and not callable(metric):
            yield f"{key}.metric", f"found {shown(metric)}; allowed: a name, or `!function file.function`"
        elif wrong := "" if values.get("process_results") is not None else _not_computed(entry, kind):
            yield f"{key}.metric", wrong
        elif isinstance(metric, str) and how is None and metric not in metric_agg_registry:
            yield key, f"`{metric}` needs its `aggregation`, such as `aggregation: mean`"
        if isinstance(how, str) and how not in aggregation_registry:
            known = sorted(aggregation_registry)
            yield f"{key}.aggregation", f"found {how!r}{nearest(how, known)}; allowed: {', '.join(known)}"


def _not_computed(entry: Mapping[str, Any], kind: Any) -> str:
    """A message if lm-eval computes no such metric for an output type."""
    import lm_eval.api.metrics  # noqa: F401 - fills the registry
    from lm_eval.api.registry import metric_registry

    metric, of_text = entry["metric"], kind == "generate_until"
    # a function gets the outputs themselves: of the metric, or as the aggregation of one that only passes them
    own = callable(metric) or callable(entry.get("aggregation")) or entry.get("hf_evaluate") is True
    if (of_text and own) or not (of_text or kind in COMPUTED):
        return ""
    known = sorted(set(metric_registry) - NOT_OF_TEXT if of_text else COMPUTED[kind])
    if metric in known:
        return ""
    hint = "" if callable(metric) or metric in metric_registry else nearest(metric, known)
    found = "a function" if callable(metric) else f"{metric!r}{hint}"
    return (
        f"found {found}; allowed for the output_type {kind}: {', '.join(known)}; with a `process_results` of your own "
        "any name"
    )


def filter_problems(values: Mapping[str, Any]) -> Iterator[Problem]:
    import lm_eval.filters  # noqa: F401 - fills the registry
    from lm_eval.api.registry import filter_registry, get_filter

    if values.get("filter_list") == []:
        yield "filter_list", "found no filter, so that no output would be marked; name one, or remove the key"
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
