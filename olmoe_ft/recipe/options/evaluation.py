"""When a run evaluates, saves and writes records: what needs rows, and which settings a choice makes useless."""

from collections.abc import Iterator

from olmoe_ft.recipe.options.given import Given
from olmoe_ft.recipe.wording import Problem, shown

NEEDS_ROWS = ("per_device_eval_batch_size", "eval_packing", "eval_steps", "eval_delay", "eval_on_start")
# by the value of the strategy: the settings that it ignores
UNREAD: dict[str, dict[str, tuple[str, ...]]] = {
    "save_strategy": {"no": ("save_steps", "save_total_limit"), "epoch": ("save_steps",), "best": ("save_steps",)},
    "logging_strategy": {"no": ("logging_steps",), "epoch": ("logging_steps",)},
    "eval_strategy": {"no": ("eval_steps", "eval_delay"), "epoch": ("eval_steps",)},
}


def broken_evaluation(given: Given) -> Iterator[Problem]:
    """Conflicts between evaluation, checkpoints and the rows that there are."""
    strategy, saves = given["eval_strategy"], given["save_strategy"]
    if not given.evaluation:
        if strategy != "no":
            yield "eval_strategy", f"found {shown(strategy)} without rows to evaluate; set `data.eval`, or remove it"
        for name in NEEDS_ROWS:
            if given.changed(name):
                yield name, f"found {shown(given[name])} without rows to evaluate; set `data.eval`, or remove it"
    if saves == "best" and strategy == "no":
        yield "save_strategy", "found best, which needs evaluations; set `eval_strategy` and `data.eval`"
    # transformers falls back to the loss for `load_best_model_at_end` and for schedules that follow it, but not for
    # this
    follows = given["load_best_model_at_end"] or given["lr_scheduler_type"] in ("reduce_lr_on_plateau", "greedy")
    if saves == "best" and strategy != "no" and given["metric_for_best_model"] is None and not follows:
        yield "save_strategy", "found best without `metric_for_best_model`; set that too, for example to eval_loss"
    if given["load_best_model_at_end"]:
        yield from _best(given)


def _best(given: Given) -> Iterator[Problem]:
    """There must be a checkpoint for every evaluation that could be the best."""
    key, strategy, saves = "load_best_model_at_end", given["eval_strategy"], given["save_strategy"]
    if strategy == "no":
        yield key, "found true without evaluations; set `eval_strategy` and `data.eval`"
    elif saves not in ("best", strategy):
        yield key, f"found true with save_strategy {saves} and eval_strategy {strategy}; choose the same for both"
    elif saves == strategy == "steps":
        save = given["save_steps"]
        evaluate = given["logging_steps"] if given["eval_steps"] is None else given["eval_steps"]
        shares = save < 1, evaluate < 1
        if shares == (True, False) or shares == (False, True):
            yield key, f"found true with save_steps {shown(save)} and eval_steps {shown(evaluate)}; give both in steps"
        elif round(save * 10**6) % round(evaluate * 10**6):
            yield (
                key,
                f"found true with save_steps {shown(save)}, which is not a multiple of eval_steps {shown(evaluate)}; "
                "make it one",
            )


def unread_by_strategy(given: Given) -> Iterator[Problem]:
    """Settings that change nothing, because a strategy ignores them."""
    for strategy, unread in UNREAD.items():
        for name in unread.get(given[strategy], ()):
            if given.changed(name) and (given.evaluation or strategy != "eval_strategy"):
                yield name, f"{strategy} is {given[strategy]}"
