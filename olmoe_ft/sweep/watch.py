"""Whether a run has diverged, or its routers have collapsed, from its records alone.

The limits are wide: they stop what is lost, not what is merely bad. In the runs of recipes/tiny, which are healthy, the
level of the loss never rises to twice its lowest, the router z-loss stays below 10, no expert is dead, and the busiest
expert of any layer has at most 0.77 of the violation that it would have if every token chose it.
"""

import math
from collections import deque
from dataclasses import dataclass, field
from statistics import median
from typing import TYPE_CHECKING, NamedTuple

from olmoe_ft.recipe import Recipe
from olmoe_ft.sweep.records import Record, number
from olmoe_ft.sweep.state import State

if TYPE_CHECKING:
    from olmoe_ft.model import OlmoeConfig

WINDOW = 5  # records; their median is the level of the loss, which one or two odd batches do not move
DIVERGED = 3.0  # times the lowest level so far. Noise and a too high learning rate that still learns stay below 2
LOST = 0.5  # of all that the loss had fallen; a DPO loss of 0.02 that rises to 0.08 has not diverged
ABOVE_START = 1.2  # times the first loss: training has done harm
LONG = 20  # records in a row above the start; a warm-up with a fresh optimizer is over before
GUESSING = 1.5  # times the loss of a model that finds all tokens equally likely; random weights are near 1
EXPLODED = 1e5  # router z-loss: logits of more than 300, of which any softmax makes one expert
SUSTAINED = 5  # records in a row with collapsed routers, or with exploded ones
RECOVERS = 50  # steps with collapsed ones. From random weights the last layer has one busy expert for about 15 steps
DEAD = 0.25  # of all experts, that no token chose
BUSIEST = 0.9  # of the violation of a layer in which one expert is chosen by every token
SEEN = 20  # assignments for each expert in a record; with fewer, experts without any are chance


class Verdict(NamedTuple):
    """Why a run is to be stopped."""

    state: State
    reason: str
    step: int


@dataclass(frozen=True)
class Expected:
    """What is known of a run before it starts."""

    experts: int
    """Of one layer."""
    chosen: int
    """Experts that work on a token."""
    layers: int
    guessing: float | None
    """The task's loss of a model that finds all tokens equally likely; None where the loss is no likelihood."""

    @classmethod
    def of(cls, recipe: Recipe, config: "OlmoeConfig") -> "Expected":
        return cls(
            experts=config.num_experts,
            chosen=config.num_experts_per_tok,
            layers=config.num_hidden_layers,
            guessing=recipe.kind.guessing_loss(config.vocab_size),
        )


@dataclass
class Watch:
    """Looks at the records of one run, in order."""

    expected: Expected
    losses: deque[float] = field(default_factory=lambda: deque(maxlen=WINDOW))
    start: float | None = None
    lowest: float = math.inf
    above: int = 0
    """Records in a row whose level was above the start."""
    exploded: int = 0
    collapsed: list[int] = field(default_factory=list)
    """The steps of the records so far in a row that show collapsed routers."""

    def see(self, record: Record) -> Verdict | None:
        """The next record; what is wrong by now."""
        return self._not_finite(record) or self._diverged(record) or self._collapsed(record)

    def _not_finite(self, record: Record) -> Verdict | None:
        for name in ("loss", "loss/task", "grad_norm"):
            value = number(record.get(name))
            if value is not None and not math.isfinite(value):
                return Verdict("diverged", f"{name} is {value:g} at step {record['step']}", record["step"])
        return None

    def _diverged(self, record: Record) -> Verdict | None:
        loss, z_loss = number(record.get("loss")), number(record.get("router/z_loss"))
        if loss is None:
            return None
        self.start = loss if self.start is None else self.start
        self.losses.append(loss)
        self.exploded = self.exploded + 1 if z_loss is not None and z_loss > EXPLODED else 0
        if len(self.losses) < WINDOW:
            return None
        level = median(self.losses)
        self.lowest = min(self.lowest, self.start, level)
        self.above = self.above + 1 if level > ABOVE_START * self.start > 0 else 0
        why = self._why_diverged(level, number(record.get("loss/task")))
        if why is None:
            return None
        what = f"loss {level:.4g} at step {record['step']} (median of {WINDOW} records)"
        return Verdict("diverged", f"{what}, {why}", record["step"])

    def _why_diverged(self, level: float, task: float | None) -> str | None:
        assert self.start is not None
        if level > DIVERGED * self.lowest > 0 and level - self.lowest > LOST * (self.start - self.lowest):
            return f"{level / self.lowest:.1f} times its lowest, {self.lowest:.4g}"
        if self.above >= LONG:
            return f"above the first, {self.start:.4g}, for {LONG} records"
        guessing = self.expected.guessing
        if guessing is not None and task is not None and min(level, task) > GUESSING * guessing:
            return f"where a model that guesses has {guessing:.4g}"
        if self.exploded >= SUSTAINED:
            return f"and the router z-loss is above {EXPLODED:g} for {SUSTAINED} records"
        return None

    def _collapsed(self, record: Record) -> Verdict | None:
        dead, violation = (number(record.get(f"router/{name}")) for name in ("dead_experts", "max_violation"))
        tokens = number(record.get("router/tokens"))
        one = self.expected
        if dead is None or violation is None or tokens is None or tokens * one.chosen < SEEN * one.experts:
            return None
        share = dead / (one.experts * one.layers)
        worst = one.experts / one.chosen - 1  # one expert is chosen by every token
        busy = worst > 0 and violation > BUSIEST * worst
        self.collapsed = [*self.collapsed, record["step"]] if share > DEAD or busy else []
        if len(self.collapsed) < SUSTAINED or record["step"] - self.collapsed[0] < RECOVERS:
            return None
        what = (
            f"max violation {violation:.2f} of at most {worst:.2f}" if busy else f"{share:.0%} of all experts are dead"
        )
        since = f"since step {self.collapsed[0]}, for {len(self.collapsed)} records"
        return Verdict("collapsed", f"{what} at step {record['step']}; so {since}", record["step"])
