"""The metrics of an evaluation that can choose the best checkpoint, and whether more or less of each is better."""

from collections.abc import Iterator, Mapping
from typing import Any

from olmoe_ft.recipe.wording import Problem, nearest, shown
from olmoe_ft.stages import STAGES

FOLLOWING = ("reduce_lr_on_plateau", "greedy")  # schedules that lower the learning rate when the metric stops improving


def direction(stage: str, metric: str) -> bool | None:
    """Whether more of a metric is better, with or without `eval_` before its name; None if neither is."""
    return STAGES[stage].metrics[metric.removeprefix("eval_")].better


def broken_metric(stage: str, training: Mapping[str, Any]) -> Iterator[Problem]:
    """What is wrong with `metric_for_best_model`, `greater_is_better` and a schedule that follows the metric."""
    wrong = list(_broken_choice(stage, training))
    yield from wrong or _broken_schedule(stage, training)


def _broken_schedule(stage: str, training: Mapping[str, Any]) -> Iterator[Problem]:
    """transformers passes the metric to these schedules, but not whether more or less of it is better."""
    metric, arguments = training.get("metric_for_best_model") or "loss", training.get("lr_scheduler_kwargs") or {}
    if training.get("lr_scheduler_type") not in FOLLOWING or not isinstance(arguments, Mapping):
        return
    greater = training.get("greater_is_better") if direction(stage, metric) is None else direction(stage, metric)
    needed, found = "max" if greater else "min", arguments.get("mode", "min")
    if found in ("min", "max") and found != needed:  # other values are reported as wrong choices
        yield (
            "training.lr_scheduler_kwargs",
            f"found mode {found}, but the schedule follows {metric.removeprefix('eval_')}, where "
            f"{'greater' if greater else 'smaller'} is better; set `mode: {needed}`",
        )


def _broken_choice(stage: str, training: Mapping[str, Any]) -> Iterator[Problem]:
    metric, given = training.get("metric_for_best_model"), training.get("greater_is_better")
    if metric is None and training.get("load_best_model_at_end") is True:
        metric = "loss"  # transformers' default
    if metric is None:
        if given is not None:
            yield (
                "training.greater_is_better",
                f"found {shown(given)} without metric_for_best_model; set that too, or remove this",
            )
        return
    if not isinstance(metric, str):
        return  # reported as a value of the wrong type
    known = {name: metric.better for name, metric in STAGES[stage].metrics.items()}
    if (name := metric.removeprefix("eval_")) not in known:
        yield (
            "training.metric_for_best_model",
            f"found {shown(metric)}{nearest(name, list(known))}; allowed in stage {stage}: {', '.join(known)}",
        )
    elif known[name] is None and given is None:
        yield (
            "training.metric_for_best_model",
            f"found {shown(metric)}, where neither more nor less is better; set `greater_is_better` too",
        )
    elif isinstance(given, bool) and known[name] is not None and given != known[name]:
        better = "greater" if known[name] else "smaller"
        yield "training.greater_is_better", f"found {shown(given)}, but of {name}, {better} is better; remove it"
