"""docs/options.md: every option of `training` with its class, and the keys of other tools (`make schema`)."""

from collections import defaultdict
from collections.abc import Iterator

from olmoe_ft.recipe.options.hints import HINTS
from olmoe_ft.recipe.options.table import KINDS, Kind
from olmoe_ft.recipe.training_fields import training_fields
from olmoe_ft.stages import STAGES

START = """\
# Options

Made by `make schema` from `olmoe_ft/recipe/options/`; a test compares.

`training` takes the field names of TRL's {configs}. Each of the {count} fields is
obeyed, set by the pipeline, refused, or without effect. What options say about each other (a schedule and its
arguments, an optimizer and its package, a loss and what it reads) is checked beside that: `olmoe-ft validate` says all
that is wrong at once, and which options of a recipe have no effect in it."""
HEADS: dict[Kind, str] = {
    "obeyed": "Obeyed\n\nWhere each acts. `tests/training/test_options_act.py` changes them one by one and looks.",
    "set": "Set by the pipeline\n\nA recipe may not name these.",
    "refused": "Refused\n\nThese may be written with their default only.",
    "no effect": "Without effect\n\nAccepted, and `validate` and `train` say so.",
}
NAMES = """\
## Keys of other tools

Names from TRL, transformers, open-instruct, axolotl, LLaMA-Factory and torchtune, and where they went. Written in a
recipe (at its top level, in `training`, or in the section of the table) they are refused with this text."""


def options_document() -> str:
    """The text of docs/options.md."""
    count = len({name for stage in STAGES for name in training_fields(stage)})
    configs = " and ".join(f"`{stage.config}` (stage {stage.name})" for stage in STAGES.values())
    parts = [
        START.format(count=count, configs=configs),
        *(_options(kind) for kind in KINDS),
        NAMES,
        "\n".join(_names()),
    ]
    return "\n\n".join(parts) + "\n"


def _options(kind: Kind) -> str:
    rows = (f"| `{name}` | {_stages(name)} | {text} |" for name, text in sorted(KINDS[kind].items()))
    return "\n".join([f"## {HEADS[kind]}\n", "| field | stage | |", "| --- | --- | --- |", *rows])


def _stages(name: str) -> str:
    stages = [stage for stage in STAGES if name in training_fields(stage)]
    return "" if len(stages) == len(STAGES) else ", ".join(stages)


def _names() -> Iterator[str]:
    yield from ("| keys | in | what is said |", "| --- | --- | --- |")
    for place, leads in HINTS.items():
        groups: dict[str, list[str]] = defaultdict(list)
        for name, text in leads.items():
            groups[text].append(f"`{name}`")
        where = f"`{place}`" if place else "anywhere"
        yield from (f"| {', '.join(names)} | {where} | {text} |" for text, names in groups.items())


if __name__ == "__main__":
    print(options_document(), end="")
