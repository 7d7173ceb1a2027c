"""What can be wrong in the worked examples that a task puts before a question."""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from olmoe_ft.data.rows import shown
from olmoe_ft.evaluation.task_rows import Rows, as_dataset
from olmoe_ft.evaluation.task_templates import PROMPT, Docs, answer_problems, docs_of, template_problems
from olmoe_ft.evaluation.task_yaml import Problem, not_found
from olmoe_ft.reasons import one_line
from olmoe_ft.recipe import UserError

SAMPLES = "fewshot_config.samples"
INSTEAD = "name another `fewshot_split`, or write them in `fewshot_config: {samples: [...]}`"


class _Source(NamedTuple):
    """Where lm-eval takes the worked examples of a task: from a split, or from its list."""

    key: str
    split: str | None = None


def _source(values: Mapping[str, Any]) -> _Source | None:
    """None where it knows no other place than the questions themselves."""
    config = values.get("fewshot_config") or {}
    if config.get("split"):
        return _Source("fewshot_config.split", config["split"])
    if values.get("fewshot_split"):
        return _Source("fewshot_split", values["fewshot_split"])
    if config.get("samples") is not None:
        return _Source(SAMPLES)
    for key in ("training_split", "validation_split"):
        if values.get(key):
            return _Source(key, values[key])
    return None


def shot_problems(values: Mapping[str, Any]) -> Iterator[Problem]:
    """What is wrong in the keys about worked examples."""
    from lm_eval.api.samplers import SAMPLER_REGISTRY

    config, wanted = values.get("fewshot_config") or {}, values.get("num_fewshot")
    if not isinstance(config, dict):
        return
    if isinstance(sampler := config.get("sampler", "default"), str) and sampler not in SAMPLER_REGISTRY:
        yield "fewshot_config.sampler", f"found {shown(sampler)}; allowed: {', '.join(SAMPLER_REGISTRY)}"
    if not isinstance(wanted, int) or wanted == 0:
        return
    if wanted < 0:
        yield "num_fewshot", f"found {wanted}; allowed: 0 or more worked examples"
        return
    source, asked = _source(values), values.get("test_split") or values.get("validation_split")
    if source is None:
        yield "num_fewshot", f"the worked examples would be questions of the test itself; {INSTEAD}"
    elif source.split is not None and source.split == asked:
        yield source.key, f"found `{asked}`, whose rows are the questions of the test itself; {INSTEAD}"
    elif source.split is None:
        try:
            listed = _listed(config["samples"])
        except UserError as error:
            yield SAMPLES, str(error)
            return
        if len(listed) < wanted:
            yield "num_fewshot", _too_few(wanted, len(listed), SAMPLES)


def example_problems(values: Mapping[str, Any], docs: Docs, read: Mapping[str, Rows]) -> Iterator[Problem]:
    """What is wrong with the worked examples themselves: each goes through the templates, as the questions do.

    Args:
        docs: the questions.
        read: the rows of each split that has a file.
    """
    config, wanted = values.get("fewshot_config") or {}, values.get("num_fewshot")
    source = _source(values) if isinstance(config, dict) else None
    if source is None or not isinstance(source.split, str | None) or not isinstance(wanted, int) or wanted < 1:
        return
    if source.split is None:
        try:
            listed = _listed(config["samples"])
        except UserError:
            return  # reported with the keys
        places = [f"example {number}" for number in range(1, len(listed) + 1)]
        examples = Docs(listed, listed, places, docs.columns)
    else:
        change = config.get("process_docs") or values.get("process_docs")
        if change is not_found or (rows := read.get(source.split)) is None:
            return  # reported with the keys, or with the splits
        try:
            examples = docs_of(rows, as_dataset(rows), change)._replace(columns=docs.columns)
        except UserError as error:
            yield source.key, str(error)
            return
        # lm-eval leaves the question itself out
        there = len(examples.places) - (source.split == values.get("test_split"))
        if there < wanted:
            yield "num_fewshot", _too_few(wanted, there, f"`{source.split}`")
    used = {**values, **{key: config[key] for key in PROMPT if config.get(key) is not None}}
    found = [*template_problems(used, examples, PROMPT), *answer_problems(used, examples, examples=True)]
    yield from ((source.key, f"{key}: {problem}") for key, problem in found)


def _listed(samples: Any) -> list[dict[str, Any]]:
    """The examples of `fewshot_config.samples`.

    Raises:
        UserError: they are no mappings, or the function for them fails.
    """
    if samples is not_found:
        return []
    if not callable(samples) and not isinstance(samples, list):
        raise UserError(f"found {shown(samples)}; allowed: a list of mappings with the keys of a row")
    try:
        listed = list(samples()) if callable(samples) else samples
    except Exception as error:  # the user's own function
        raise UserError(f"the function fails ({one_line(error)}); correct it") from None
    if wrong := [one for one in listed if not isinstance(one, dict)]:
        raise UserError(f"found {shown(wrong[0])}; allowed: mappings with the keys of a row")
    return listed


def _too_few(wanted: int, there: int, place: str) -> str:
    return f"found {wanted}, more than the worked examples in {place} ({there}); lower it, or add examples"
