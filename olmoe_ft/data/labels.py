"""The label of a judged answer: which key has it, and whether it means good."""

from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any

from olmoe_ft.data.formats import recognised
from olmoe_ft.data.pairs import preference_pair
from olmoe_ft.data.reader import RowReader
from olmoe_ft.data.rows import RowError, is_blank, key_name, shown, shown_keys
from olmoe_ft.data.suggest import pair_columns, shape_hint
from olmoe_ft.data.unread import JUDGEMENTS, LABELS
from olmoe_ft.recipe.data_section import label_name
from olmoe_ft.recipe.yaml_file import inline_yaml

SINGLE = str | bool | int | float  # what a label may be
NAMES = {"true": True, "false": False, "1": True, "0": False}
OPINIONS = frozenset(
    "feedback human_feedback rating score quality reward vote votes thumb thumbs thumbs_up liked like is_good good "
    "is_correct correct accepted is_accepted judgement judgment desirable is_desirable".split()
)  # keys that datasets have for it, beside JUDGEMENTS
THRESHOLD = "write true for scores above a threshold that you choose, and false for the others"


def pop_label(reader: RowReader) -> bool:
    """Whether a row's answer is good, by the names that the source gives to its labels, or by NAMES.

    The label is no part of the conversation, so it is taken out of the row.

    Raises:
        RowError: there is no label or more than one, or it says neither good nor bad.
    """
    filled = [key for key in LABELS if reader.is_filled(key)]
    if not filled:
        raise RowError(_missing(reader))
    if len(filled) > 1:
        one, other = filled
        raise RowError(
            f"has both `{one}` and `{other}`; leave one out with `ignore: [{other}]` below the source's `path`"
        )
    value, names = reader.row.pop(filled[0]), reader.reading.labels or NAMES
    if isinstance(value, SINGLE):
        with suppress(KeyError):
            return names[label_name(value)]
    raise RowError(f"`{filled[0]}`: found {shown(value)}; allowed: {', '.join(names)}; {_meaning(value, reader)}")


def _meaning(value: Any, reader: RowReader) -> str:
    """How to say what an unknown label means."""
    if isinstance(value, list | tuple | Mapping):
        return "give one label, of the last turn"
    if not isinstance(value, SINGLE):
        return f"write it as a text, a number, true or false in place of a value of type {type(value).__name__}"
    if _is_score(value):
        return THRESHOLD
    if reader.reading.labels:
        return "name it in the source's `labels` too, or correct the row, or set data.malformed to drop"
    return f"say below the source's `path` what the labels mean, as in   {_example(value)}"


def _missing(reader: RowReader) -> str:
    """What a row without a label lacks, and how to name the key that has it."""
    if ignored := [key for key in LABELS if key in reader.reading.ignore]:
        return f"has no label, because `ignore` leaves `{ignored[0]}` out; remove it there"
    found = (
        f"found {shown_keys(reader.row)}; a judged answer needs a `label`, true if it is good and false if it is bad"
    )
    if hint := pair_columns(reader.row, preference_pair):
        return found + hint
    key = next(_opinions(reader.row), None)
    if key is None:
        return found + (_other_layout(reader) or "; add it, or rename its key with `columns`")
    value, remedy = reader.row[key], f"add   columns: {inline_yaml({key: 'label'})}"
    if _is_score(value):
        return f"{found}; if `{key_name(key)}` judges the answer, add a `label`: {THRESHOLD}"
    if label_name(value) not in (reader.reading.labels or NAMES):
        remedy += f", {_example(value)}"
    return f"{found}; if `{key_name(key)}` judges the answer, {remedy}   below the source's `path`"


def _other_layout(reader: RowReader) -> str:
    """What to do with a row that has no conversation of its own, if it is known."""
    try:
        recognised(reader)
    except RowError:
        return shape_hint(reader.row)
    return ""


def _opinions(row: Mapping[str, Any]) -> Iterator[str]:
    """Keys that may have the label: those with a name for it, then those that are true or false."""
    filled = {key: one for key, one in row.items() if isinstance(one, SINGLE) and not is_blank(one)}
    yield from (key for key in filled if key in JUDGEMENTS or str(key).lower() in OPINIONS)
    yield from (key for key, value in filled.items() if isinstance(value, bool))


def _is_score(value: Any) -> bool:
    """Whether a value is a number with a fraction."""
    with suppress(ValueError, OverflowError):
        return not float(value).is_integer()
    return False


def _example(value: Any) -> str:
    """Names for labels, of the kind that a value is."""
    name = label_name(value)
    if not name.removeprefix("-").isdecimal():
        return "labels: {good: true, bad: false}"
    return 'labels: {"1": true, "-1": false}' if name.startswith("-") else 'labels: {"5": true, "1": false}'
