"""One table of all fields of TRL's `SFTConfig` and `DPOConfig`: what becomes of each."""

from typing import Literal, NamedTuple

from olmoe_ft.recipe.options.obeyed import OBEYED
from olmoe_ft.recipe.options.refused import NO_EFFECT, REFUSED, SET

Kind = Literal["obeyed", "set", "refused", "no effect"]


class Option(NamedTuple):
    """A field's class, and where it acts or why it does not."""

    kind: Kind
    text: str


KINDS: dict[Kind, dict[str, str]] = {"obeyed": OBEYED, "set": SET, "refused": REFUSED, "no effect": NO_EFFECT}
OPTIONS = {name: Option(kind, text) for kind, options in KINDS.items() for name, text in options.items()}
