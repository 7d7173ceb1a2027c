"""One table of all fields of TRL's `SFTConfig` and `DPOConfig`, and how olmoe_ft treats each."""

from typing import Literal, NamedTuple

from olmoe_ft.recipe.options.obeyed import OBEYED
from olmoe_ft.recipe.options.refused import NO_EFFECT, REFUSED, SET

Kind = Literal["obeyed", "set", "refused", "no effect"]


class Option(NamedTuple):
    """The kind of a field, and what it does or why it does nothing."""

    kind: Kind
    text: str


KINDS: dict[Kind, dict[str, str]] = {"obeyed": OBEYED, "set": SET, "refused": REFUSED, "no effect": NO_EFFECT}
OPTIONS = {name: Option(kind, text) for kind, options in KINDS.items() for name, text in options.items()}
