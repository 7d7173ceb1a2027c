"""The order of several runs by a metric that a person names."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from olmoe_ft.evaluation.direction import direction_by_name
from olmoe_ft.recipe import UserError
from olmoe_ft.recipe.wording import nearest
from olmoe_ft.report.comparison.compared_scores import ComparedScores
from olmoe_ft.stages import STAGES

LESS = ("loss", "perplexity", "max_violation", "dead_experts", "grad_norm", "padding", "memory", "runtime")
MORE = ("accuracy", "accuracies", "margins", "per_second", "mfu")
"""Of a metric with one of these in its name less or more is better, unless its stage says otherwise."""


@dataclass(frozen=True)
class Ranking:
    """Runs by a metric."""

    name: str
    higher_is_better: bool | None
    """None where neither is, or it is not known; the highest comes first then."""
    values: Sequence[float | None]
    """Of each run, in the order in which the runs were given."""

    @property
    def lower(self) -> bool:
        """Whether the lowest comes first."""
        return self.higher_is_better is False

    @property
    def first(self) -> str:
        """What the first run's value is."""
        return "highest" if self.higher_is_better is None else "best"

    @property
    def order(self) -> list[int]:
        """The places of the runs, the best or the highest first; then what is not finite, and runs without a value."""

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
        return Ranking(by, scores.higher_is_better(keys[by]), [None if one is None else one.value for one in found])
    of_runs = [
        {name for name in one.run.metrics.of if "/layer_" not in name and not name.startswith("eval/")}
        for one in scores.runs
    ]
    if any(by in names for names in of_runs):
        return Ranking(by, direction(by), [one.run.metrics.last(by) for one in scores.runs])
    in_all = [name for name, key in keys.items() if all(scores.score(at, key) for at in range(len(scores.runs)))]
    allowed = [*in_all, *sorted(set.intersection(*of_runs))]
    raise UserError(
        f"--by: found {by}{nearest(by, [*keys, *set.union(*of_runs)])}; allowed, as all of these runs have it: "
        f"{', '.join(allowed) or 'nothing'}"
    )


def direction(by: str) -> bool | None:
    """Whether more of a metric of records, or of a score, is better, by its name alone; None where neither is, or that
    is not known."""
    if by.startswith("eval/"):
        return direction_by_name(by.split("/", 2)[-1])
    short = by.removeprefix("eval_")
    said = [stage.metrics[short].better for stage in STAGES.values() if short in stage.metrics]
    if said:
        return said[0]
    if any(word in by for word in LESS):
        return False
    return True if any(word in by for word in MORE) else None
