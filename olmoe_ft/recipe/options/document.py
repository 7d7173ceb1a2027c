"""docs/options.md: every option of `training` by kind, and the keys of other tools (`make schema`)."""

from collections import defaultdict
from collections.abc import Iterator

from olmoe_ft.recipe.options.hints import HINTS
from olmoe_ft.recipe.options.table import KINDS, Kind
from olmoe_ft.recipe.training_fields import training_fields
from olmoe_ft.stages import STAGES

START = """\
# Options

Written by `make schema` from `olmoe_ft/recipe/options/`; a test checks that it is up to date.

`training` takes the field names of TRL's {configs}.
Each of the {count} fields is obeyed, set by the pipeline, refused, or without effect. Combinations are checked too: a
schedule and its arguments, an optimizer and its package, a loss and the options it uses. `olmoe-ft validate` reports
all mistakes at once, and says which options of a recipe have no effect."""
HEADS: dict[Kind, str] = {
    "obeyed": "Obeyed\n\nWhat each does. `tests/training/test_options_act.py` changes them one by one and checks the "
    "effect.",
    "set": "Set by the pipeline\n\nA recipe cannot set these.",
    "refused": "Refused\n\nThese are accepted only with their default value.",
    "no effect": "Without effect\n\nThese are accepted; `validate` and `train` say that they do nothing.",
}
NAMES = """\
## Keys of other tools

Names from TRL, transformers, open-instruct, axolotl, LLaMA-Factory and torchtune, and what to write instead. In a
recipe (at its top level, in `training`, or in the section that the table names) they are refused with this text."""


def options_document() -> str:
    """The text of docs/options.md."""
    count = len({name for stage in STAGES for name in training_fields(stage)})
    configs = ", ".join(f"`{stage.config}` (stage {stage.name})" for stage in STAGES.values())
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
    yield from ("| keys | in | message |", "| --- | --- | --- |")
    for place, texts in HINTS.items():
        groups: dict[str, list[str]] = defaultdict(list)
        for name, text in texts.items():
            groups[text].append(f"`{name}`")
        where = f"`{place}`" if place else "anywhere"
        yield from (f"| {', '.join(names)} | {where} | {text} |" for text, names in groups.items())


if __name__ == "__main__":
    print(options_document(), end="")
