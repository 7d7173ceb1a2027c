"""The order of several runs by a metric that a person names."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from olmoe_ft.recipe import UserError
from olmoe_ft.recipe.wording import nearest
from olmoe_ft.report.comparison.compared_scores import ComparedScores, is_lower_better
from olmoe_ft.stages import STAGES

LESS = ("loss", "perplexity", "max_violation", "dead_experts", "grad_norm", "padding", "memory", "runtime")
"""Of a metric with one of these in its name less is better, unless its stage says otherwise."""


@dataclass(frozen=True)
class Ranking:
    """Runs by a metric."""

    name: str
    lower: bool
    """Whether less is better."""
    values: Sequence[float | None]
    """Of each run, in the order in which the runs were given."""

    @property
    def order(self) -> list[int]:
        """The places of the runs, the best first; then those without a finite value, and those without any."""

        def key(place: int) -> tuple[int, float]:
            value = self.values[place]
            if value is None:
                return 2, 0.0
            if not math.isfinite(value):
                return 1, 0.0
            return 0, value if self.lower else -value

        return sorted(range(len(self.values)), key=key)


def ranking(scores: ComparedScores, by: str) -> Ranking:
    """By the newest value in each run's records, or by a score after training (`eval/<task>/<metric>`).

    Raises:
        UserError: no run has it.
    """
    keys = {f"eval/{task}/{metric}": (task, metric) for task, metric in scores.keys}
    if by in keys:
        found = [scores.score(place, keys[by]) for place in range(len(scores.runs))]
        return Ranking(by, is_less_better(by), [None if one is None else one.value for one in found])
    of_runs = [
        {name for name in one.run.metrics.of if "/layer_" not in name and not name.startswith("eval/")}
        for one in scores.runs
    ]
    if any(by in names for names in of_runs):
        return Ranking(by, is_less_better(by), [one.run.metrics.last(by) for one in scores.runs])
    in_all = [name for name, key in keys.items() if all(scores.score(at, key) for at in range(len(scores.runs)))]
    allowed = [*in_all, *sorted(set.intersection(*of_runs))]
    raise UserError(
        f"--by: found {by}{nearest(by, [*keys, *set.union(*of_runs)])}; allowed, as all of these runs have it: "
        f"{', '.join(allowed) or 'nothing'}"
    )


def is_less_better(by: str) -> bool:
    """Of a metric of records or a score, by its name."""
    if by.startswith("eval/"):
        return is_lower_better(by.split("/", 2)[-1])
    short = by.removeprefix("eval_")
    for stage in STAGES.values():
        if short in stage.metrics and stage.metrics[short].better is not None:
            return not stage.metrics[short].better
    return any(word in by for word in LESS)
