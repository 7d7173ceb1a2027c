"""The same questions put to two models."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from olmoe_ft.evaluation.score import Sample

Pair = tuple[Sample, Sample]  # the same question, by task and the row it was made of


def pairs(first: Sequence[Sample], second: Sequence[Sample]) -> list[Pair]:
    """The questions that both have, in the order of the first; those with another verdict come before the others."""
    others = _by_question(second)
    found = [(one, others[question]) for question, one in _by_question(first).items() if question in others]
    return sorted(found, key=lambda pair: pair[0].right == pair[1].right)


def _by_question(samples: Sequence[Sample]) -> dict[tuple[str, str, int], Sample]:
    """By task, row, and how often the row came before, which may be another place in another file of rows."""
    seen: Counter[tuple[str, str]] = Counter()
    found = {}
    for sample in samples:
        question = sample.task, sample.document or str(sample.id)
        found[*question, seen[question]] = sample
        seen[question] += 1
    return found


@dataclass(frozen=True)
class Changes:
    """How many verdicts are others in the second."""

    gained: int
    """Wrong in the first, right in the second."""
    lost: int
    """Right in the first, wrong in the second."""

    @classmethod
    def of(cls, found: Sequence[Pair]) -> "Changes":
        verdicts = [(one.right, other.right) for one, other in found]
        return cls(verdicts.count((False, True)), verdicts.count((True, False)))

    def p_value(self) -> float:
        """McNemar's exact test (McNemar 1947): how likely changes are at least as one-sided where both models are
        equally good. A change is then one way or the other like the toss of a coin.
        """
        changes, fewer = self.gained + self.lost, min(self.gained, self.lost)
        ways = total = 1  # to choose none of the changes; then one, two, ... `fewer`
        for chosen in range(1, fewer + 1):
            ways = ways * (changes - chosen + 1) // chosen
            total += ways
        return min(1.0, 2 * total / 2**changes)
