"""One table of all fields of TRL's configurations of the stages, and how olmoe_ft treats each."""

from typing import Literal, NamedTuple

from olmoe_ft.recipe.options.obeyed import OBEYED
from olmoe_ft.recipe.options.refused import NO_EFFECT, REFUSED, SET
from olmoe_ft.stages import STAGES

Kind = Literal["obeyed", "set", "refused", "no effect"]


class Option(NamedTuple):
    """The kind of a field, and what it does or why it does nothing."""

    kind: Kind
    text: str


def _of_stages() -> dict[str, str]:
    """What each stage says of its own fields; of one that several have, stage by stage."""
    said: dict[str, dict[str, str]] = {}
    for stage in STAGES.values():
        for name, text in stage.options.items():
            said.setdefault(name, {})[stage.name] = text
    return {
        name: next(iter(texts.values())) if len(texts) == 1 else "; ".join(f"in {one}: {texts[one]}" for one in texts)
        for name, texts in said.items()
    }


KINDS: dict[Kind, dict[str, str]] = {
    "obeyed": OBEYED | _of_stages(),
    "set": SET,
    "refused": REFUSED,
    "no effect": NO_EFFECT,
}
OPTIONS = {name: Option(kind, text) for kind, options in KINDS.items() for name, text in options.items()}
