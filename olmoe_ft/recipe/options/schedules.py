"""Learning rate schedules and their arguments, read from the functions that build them."""

from collections.abc import Iterator
from typing import Any

from olmoe_ft.recipe.options.given import Given
from olmoe_ft.recipe.training_fields import Parameter, dictionary, fits, members, parameters
from olmoe_ft.recipe.wording import Problem, nearest, shown

MODULE = ("transformers", "optimization.py")
# functions that pass all their arguments on to a class
CLASSES = {
    "reduce_lr_on_plateau": ("torch", "optim/lr_scheduler.py", "ReduceLROnPlateau"),
    "greedy": (*MODULE, "GreedyLR"),
}
GIVEN_BY_TRAINER = {"self", "optimizer", "num_warmup_steps", "num_training_steps", "last_epoch"}
TAKE_NOTHING = ("constant", "constant_with_warmup")
NO_WARMUP = ("constant", *CLASSES)
SHAPES = ("linear", "cosine", "1-sqrt")
CHOICES = {"warmup_type": SHAPES, "decay_type": SHAPES, "mode": ("min", "max"), "threshold_mode": ("rel", "abs")}


def broken_schedule(given: Given) -> Iterator[Problem]:
    """Mistakes in the schedule, its arguments and its warm-up."""
    name, arguments = given["lr_scheduler_type"], given["lr_scheduler_kwargs"] or {}
    if name in NO_WARMUP and given["warmup_steps"]:
        instead = "set it to 0, or choose constant_with_warmup" if name == "constant" else "set it to 0"
        yield (
            "warmup_steps",
            f"found {shown(given['warmup_steps'])} with lr_scheduler_type {name}, which has no warm-up; {instead}",
        )
    if name in CLASSES and given["eval_strategy"] == "no":
        yield (
            "lr_scheduler_type",
            f"found {shown(name)}, which needs evaluations; set `eval_strategy` and `data.eval`",
        )
    taken = arguments_of(name)
    allowed = f"allowed: {', '.join(taken)}" if taken else "it takes none, so remove it"
    for key, value in arguments.items():
        place = f"lr_scheduler_kwargs.{key}"
        if key not in taken:
            yield place, f"the schedule {name} has no such argument{nearest(str(key), list(taken))}; {allowed}"
        elif key in CHOICES and value not in CHOICES[key]:
            yield place, f"found {shown(value)}; allowed: {', '.join(CHOICES[key])}"
        elif not fits(value, taken[key].annotation):
            yield place, f"found {shown(value)}; allowed: {taken[key].annotation}"
    for key, parameter in taken.items():
        if parameter.needed and key not in arguments:
            yield (
                "lr_scheduler_kwargs",
                f"the schedule {name} needs {key}, which is missing; give `lr_scheduler_kwargs: {{{key}: …}}`",
            )
    yield from _values(name, arguments, given)


def arguments_of(name: str) -> dict[str, Parameter]:
    """What `lr_scheduler_kwargs` may hold for a schedule."""
    if name in TAKE_NOTHING:
        return {}
    functions = {members("SchedulerType")[key.partition(".")[2]]: value for key, value in _functions().items()}
    found = parameters(*CLASSES.get(name, (*MODULE, functions[name])))
    return {key: parameter for key, parameter in found.items() if key not in GIVEN_BY_TRAINER}


def _functions() -> dict[str, str]:
    return dictionary(*MODULE, "TYPE_TO_SCHEDULER_FUNCTION")


def _values(name: str, arguments: dict[str, Any], given: Given) -> Iterator[Problem]:
    """Values that the functions themselves refuse, or that make no sense."""
    rate, key = given["learning_rate"], "lr_scheduler_kwargs"
    numbers = {key: value for key, value in arguments.items() if isinstance(value, int | float)}
    if name in ("cosine_with_min_lr", "cosine_warmup_with_min_lr"):
        ends = [end for end in ("min_lr", "min_lr_rate") if arguments.get(end) is not None]
        if len(ends) != 1:
            found = "both min_lr and min_lr_rate" if ends else "neither min_lr nor min_lr_rate"
            yield (
                key,
                f"found {found}; {name} needs one of them, for example `lr_scheduler_kwargs: {{min_lr_rate: 0.1}}`",
            )
        if numbers.get("min_lr_rate", 0) > 1:
            yield (
                f"{key}.min_lr_rate",
                f"found {shown(numbers['min_lr_rate'])}; it is a share of learning_rate; allowed: at most 1",
            )
    ends_at = {"polynomial": ("lr_end", 1e-7), "greedy": ("min_lr", 1e-3)}.get(name, ("min_lr", 0))
    end = numbers.get(ends_at[0], ends_at[1])
    if end > rate or (name == "polynomial" and end == rate):
        source = "found" if ends_at[0] in numbers else f"the default of the schedule {name} is"
        yield f"{key}.{ends_at[0]}", f"{source} {shown(end)}; it must be below learning_rate ({shown(rate)})"
    if "factor" in numbers and not 0 < numbers["factor"] < 1:
        yield f"{key}.factor", f"found {shown(numbers['factor'])}; it must be above 0 and below 1"
    if name == "warmup_stable_decay" and given["max_steps"] > 0 and "num_decay_steps" in numbers:
        warmup = given["warmup_steps"] if given["warmup_steps"] >= 1 else given["warmup_steps"] * given["max_steps"]
        if warmup + numbers["num_decay_steps"] > given["max_steps"]:
            yield (
                f"{key}.num_decay_steps",
                f"found {shown(numbers['num_decay_steps'])}; together with warmup_steps it must be at most max_steps "
                f"({given['max_steps']})",
            )
