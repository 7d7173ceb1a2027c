"""The options of one stage, as the rules between them see them."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from olmoe_ft.recipe.training_fields import default_of


class Unsettled(Exception):
    """A rule reads an option that is wrong by itself. That is reported already, so the rule is skipped."""


@dataclass(frozen=True)
class Given:
    """Options that are valid one by one, and the facts from other sections that rules need.

    Attributes:
        values: by name, only those that the recipe sets.
        lora: whether adapters are trained.
        dtype: of the weights.
        evaluation: whether there are rows to evaluate on.
        wrong: options that are wrong by themselves.
    """

    stage: str
    values: Mapping[str, Any]
    lora: bool = False
    dtype: str = "bfloat16"
    evaluation: bool = False
    wrong: frozenset[str] = frozenset()

    def __contains__(self, name: str) -> bool:
        if name in self.wrong:
            raise Unsettled(name)
        return name in self.values

    def __getitem__(self, name: str) -> Any:
        """The value of an option, by default TRL's."""
        return self.values[name] if name in self else default_of(self.stage, name)

    def changed(self, name: str) -> bool:
        """Whether an option is set to something else than its default."""
        return name in self and self.values[name] != default_of(self.stage, name)
