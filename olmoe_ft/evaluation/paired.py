"""The same questions put to two models."""

from collections.abc import Sequence
from dataclasses import dataclass

from olmoe_ft.evaluation.score import Sample

Pair = tuple[Sample, Sample]  # the same question, by task, id and the row it was made of


def pairs(first: Sequence[Sample], second: Sequence[Sample]) -> list[Pair]:
    """The questions that both have, in the order of the first; those with another verdict come before the others."""
    by_question = {(sample.task, sample.id, sample.document): sample for sample in second}
    matched = [(one, by_question.get((one.task, one.id, one.document))) for one in first]
    found = [(one, other) for one, other in matched if other is not None]
    return sorted(found, key=lambda pair: pair[0].right == pair[1].right)


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
