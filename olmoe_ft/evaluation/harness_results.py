"""lm-eval's results as scores and samples."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from olmoe_ft.evaluation.engine_lm import Kept
from olmoe_ft.evaluation.score import Sample, Score, digest

NO_FILTER = "none"

Example = Mapping[str, Any]  # a line of lm-eval's samples


def scores_of(
    task: str,
    values: Mapping[str, Any],
    counts: Mapping[tuple[str, str], int],
    shots: int,
    template: str | None,
    higher: Mapping[str, Any],
) -> Iterator[Score]:
    """lm-eval's results of a task or a group: `metric,filter` and `metric_stderr,filter`.

    Args:
        counts: questions that have a metric, by task and metric; lm-eval gives one number for all metrics of a task.
        higher: by metric whether more is better; what is neither True nor False is not known.
    """
    for key, value in values.items():
        metric, comma, read_by = key.partition(",")
        if not comma or metric.endswith("_stderr") or not isinstance(value, int | float):
            continue
        stderr, name = values.get(f"{metric}_stderr,{read_by}"), metric_name(metric, read_by)
        yield Score(
            task=task,
            metric=name,
            value=float(value),
            stderr=float(stderr) if isinstance(stderr, int | float) else None,
            n=counts.get((task, name), int(values["sample_len"])),
            shots=shots,
            template=template,
            higher_is_better=higher[metric] if isinstance(higher.get(metric), bool) else None,
        )


def metric_name(metric: str, read_by: str) -> str:
    """As a `Score` names it.

    Args:
        read_by: lm-eval's filter that reads the output.
    """
    return metric if read_by == NO_FILTER else f"{metric}/{read_by}"


def members_of(children: Mapping[str, Sequence[str]]) -> dict[str, set[str]]:
    """The tasks below each group, through the groups in it."""

    def below(name: str) -> set[str]:
        return set().union(*map(below, children[name])) if children.get(name) else {name}

    return {group: below(group) for group, ones in children.items() if ones}


def headline_of(tasks: Mapping[str, Any], children: Mapping[str, Sequence[str]], scores: Sequence[Score]) -> list[str]:
    """The tasks and groups that answer what was asked: of a group without a score of its own, its members."""
    scored, below = {score.task for score in scores}, {child for ones in children.values() for child in ones}

    def answering(name: str) -> list[str]:
        if name in scored or not children.get(name):
            return [name]
        return [one for child in children[name] for one in answering(child)]

    roots = [name for name in (*children, *tasks) if name not in below]
    return [one for root in dict.fromkeys(roots) for one in answering(root)]


def by_question(examples: Sequence[Example]) -> dict[int, list[Example]]:
    """lm-eval lists a question once for each filter."""
    found: dict[int, list[Example]] = defaultdict(list)
    for example in sorted(examples, key=lambda one: one["doc_id"]):
        found[example["doc_id"]].append(example)
    return found


def sample_of(task: str, number: int, ones: Sequence[Example], kept: Kept) -> Sample:
    metrics = {
        metric_name(metric, one["filter"]): float(one[metric])
        for one in ones
        for metric in one["metrics"]
        if isinstance(one[metric], int | float)
    }
    verdict = next(iter(metrics.values()), None)
    output, expected = said_and_expected(ones[0])
    return Sample(
        task=task,
        id=number,
        prompt=str(ones[0]["arguments"][0][0]),
        output=output,
        expected=expected,
        right=bool(verdict) if verdict in (0.0, 1.0) else None,
        metrics=metrics,
        tokens=kept.tokens,
        experts=[list(expert) for expert in kept.experts],
        document=digest(ones[0]["doc"]),
    )


def said_and_expected(example: Example) -> tuple[str, str]:
    """The model's output and the expected one; of several choices, the likeliest and the right one."""
    answers, target = [resps[0] for resps in example["resps"]], example["target"]
    if not isinstance(answers[0], list | tuple):
        return str(answers[0]), str(target)
    choices = [str(arguments[1]).strip() for arguments in example["arguments"]]
    likeliest = max(range(len(choices)), key=lambda index: answers[index][0])
    right = choices[target] if isinstance(target, int) and len(choices) > target else str(target)
    return choices[likeliest], right
