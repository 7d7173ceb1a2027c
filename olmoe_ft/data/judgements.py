"""A row with a judged answer -> a prompt, a completion, each a list of messages, and whether the answer is good."""

from contextlib import suppress
from typing import Any

from olmoe_ft.data.formats import CONVERSATIONS, Example, UnknownForm, messages, recognised, row_reader
from olmoe_ft.data.labels import pop_label
from olmoe_ft.data.pairs import preference_pair
from olmoe_ft.data.reader import RowReader
from olmoe_ft.data.rows import USUAL, Reading, RowError
from olmoe_ft.data.suggest import shape_hint, with_columns
from olmoe_ft.data.turns import is_transcript, transcript
from olmoe_ft.data.unread import LABELS

PAIR = ("chosen", "rejected")


def judged_answers(row: Any, format: str | None = None, reading: Reading = USUAL) -> list[Example]:
    """The judged answers of a row: one, or of a preference pair the better one as good and the other one as bad.

    Args:
        row: a prompt and its completion, or a conversation whose last turn is judged, in any format of stage sft or as
            HH-RLHF's text in `text`, with a `label` (`kto_tag` in LLaMA-Factory's files); or a preference pair.
        format: of the conversation, or "preference"; None recognises it by the keys.
    Returns:
        of each answer `prompt` and `completion` (messages) and `label`; `form`, `unread` and `doubtful` as in
        `training_example`.
    Raises:
        RowError: a part is missing, the last turn is no answer, or the label says neither good nor bad.
    """
    reader = row_reader(row, reading)
    is_pair = reader.row.keys() >= {*PAIR} and any(reader.is_filled(key) for key in PAIR)
    if format == "preference" or (format is None and is_pair):
        if is_pair and (judged := [key for key in LABELS if reader.is_filled(key)]):
            raise RowError(
                f"is a preference pair, whose answers need no label, but has `{judged[0]}`; leave it out with "
                f"`ignore: [{judged[0]}]` below the source's `path`{_or_its_judged_answer(row, reading)}"
            )
        return _both(preference_pair(row, None, reading))
    label = pop_label(reader)
    try:
        return [_judged(reader, format) | {"label": label}]
    except UnknownForm as error:
        hint = with_columns(reader.row, lambda renamed: _judged(row_reader(renamed, USUAL), None))
        raise RowError(f"{error}{hint or shape_hint(reader.row) or error.advice}") from None


def _or_its_judged_answer(row: Any, reading: Reading) -> str:
    """How to read the answer that a pair has beside its two, if it has one."""
    with suppress(RowError):
        reader = row_reader({key: value for key, value in row.items() if key not in PAIR}, reading)
        pop_label(reader)
        form = recognised(reader)
        _judged(reader, form)
        return f", or read its judged answer in place of the pair with `format: {form}`"
    return ""


def _both(pair: Example) -> list[Example]:
    """Both answers of a pair, each with lists of its own, to which its reader adds."""
    form = f"{pair['form']} split in two"
    return [
        {
            "prompt": pair["prompt"],
            "completion": pair[side],
            "label": good,
            "form": form,
            "unread": [*pair["unread"]],
            "doubtful": [*pair["doubtful"]],
        }
        for side, good in zip(PAIR, (True, False), strict=True)
    ]


def _judged(reader: RowReader, format: str | None) -> Example:
    form = format or recognised(reader)
    if form == "text":
        if not is_transcript(whole := reader.get("text")):
            raise RowError(
                "`text` is no conversation; allowed with a `label`: HH-RLHF's format (Human: … Assistant: …)"
            )
        turns = transcript(reader, whole, "`text`")
        form = "text (transcript)"
    else:
        read = CONVERSATIONS[form][1](reader)
        turns = read.turns
        form += " (transcript)" if read.transcript else ""
    *prompt, answer = turns
    if answer.role != "assistant":
        raise RowError(f"its last turn is of the {answer.role}; the `label` judges the last turn, of the assistant")
    if not prompt or prompt[-1].role != "user":
        raise RowError("has no user turn before the answer that its `label` judges")
    return {
        "prompt": messages(prompt),
        "completion": messages([answer]),
        "form": f"{form} with a label" + (" (as JSON text)" if reader.as_text else ""),
        **reader.unread(turn.content for turn in turns),
    }
