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
    """What each stage says of its own fields; of one that several have and do not say the same of, stage by stage."""
    said: dict[str, dict[str, list[str]]] = {}
    for stage in STAGES.values():
        for name, text in stage.options.items():
            said.setdefault(name, {}).setdefault(text, []).append(stage.name)
    return {
        name: next(iter(texts))
        if len(texts) == 1
        else "; ".join(f"in {', '.join(stages)}: {text}" for text, stages in texts.items())
        for name, texts in said.items()
    }


KINDS: dict[Kind, dict[str, str]] = {
    "obeyed": OBEYED | _of_stages(),
    "set": SET,
    "refused": REFUSED,
    "no effect": NO_EFFECT,
}
OPTIONS = {name: Option(kind, text) for kind, options in KINDS.items() for name, text in options.items()}
