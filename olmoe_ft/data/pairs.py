"""A row with a better and a worse answer -> a preference pair: prompt, chosen, rejected, each a list of messages."""

from typing import Any

from olmoe_ft.data.content import text
from olmoe_ft.data.formats import Example, UnknownForm, messages, row_reader
from olmoe_ft.data.prompts import read_prompt, with_system
from olmoe_ft.data.reader import RowReader
from olmoe_ft.data.rows import USUAL, Reading, RowError, shown_keys
from olmoe_ft.data.suggest import pair_columns, shape_hint
from olmoe_ft.data.turns import Turn, is_transcript, is_turn, read_turns, transcript


def preference_pair(row: Any, format: str | None = None, reading: Reading = USUAL) -> Example:
    """The prompt and its two answers.

    Args:
        row: has `chosen` and `rejected`. Either both are whole transcripts (messages, or HH-RLHF's text), and their
            common start is the prompt; or each is a text or one message, and the prompt is in `prompt`,
            `instruction`, `question`, `conversations` or `messages`.
        format: "preference" or None.
    Returns:
        `prompt`, `chosen`, `rejected` (messages); `form`, `unread` and `doubtful` as in `training_example`.
    Raises:
        RowError: an answer or the prompt is missing, or the prompt is not followed by exactly one answer each.
    """
    if format not in (None, "preference"):
        raise RowError(f"found format {format!r}, which has no preference pairs; allowed: preference")
    reader = row_reader(row, reading)
    try:
        return _pair(reader)
    except UnknownForm as error:
        hint = pair_columns(reader.row, lambda renamed: _pair(row_reader(renamed, USUAL)))
        raise RowError(f"{error}{hint or shape_hint(reader.row) or error.advice}") from None


def _pair(reader: RowReader) -> Example:
    if not {"chosen", "rejected"} <= reader.row.keys():
        raise UnknownForm(
            f"found {shown_keys(reader.row)}; a preference pair needs `chosen` and `rejected`",
            " (rename keys with `columns`, the better answer to `chosen`)",
        )
    chosen, rejected = (_answer(reader, key) for key in ("chosen", "rejected"))
    if len(chosen) > 1 and len(rejected) > 1:
        form = "pairs of whole conversations"
        shared = _common_prefix(chosen, rejected)
        prompt, chosen, rejected = _shared_prompt(reader, shared), chosen[len(shared) :], rejected[len(shared) :]
    else:
        form = "prompt and two answers"
        prompt = read_prompt(reader)
    if not prompt or prompt[-1].role != "user":
        missing = "has no prompt that ends with a user turn"
        advice = "; give `prompt`, or transcripts that start with the same turns"
        raise RowError(missing + advice) if prompt else UnknownForm(missing, advice)
    for name, answer in (("chosen", chosen), ("rejected", rejected)):
        if [turn.role for turn in answer] != ["assistant"]:
            raise RowError(f"`{name}` adds {len(answer)} turns to the prompt; allowed: one assistant turn")
    parts = {"prompt": prompt, "chosen": chosen, "rejected": rejected}
    return {
        **{name: messages(turns) for name, turns in parts.items()},
        "form": form + (" (as JSON text)" if reader.as_text else ""),
        **reader.unread(turn.content for turns in parts.values() for turn in turns),
    }


def _answer(row: RowReader, key: str) -> list[Turn]:
    answer = row.get(key)
    if isinstance(answer, list) or is_turn(answer):
        return read_turns(row, key)
    if is_transcript(answer):
        return transcript(row, answer, f"`{key}`")
    return [Turn("assistant", text(answer, f"`{key}`", row))]


def _common_prefix(chosen: list[Turn], rejected: list[Turn]) -> list[Turn]:
    length = 0
    for left, right in zip(chosen[:-1], rejected[:-1], strict=False):
        if left.said != right.said:
            break
        length += 1
    return chosen[:length]


def _shared_prompt(row: RowReader, shared: list[Turn]) -> list[Turn]:
    """The prompt of two transcripts: what only `prompt` and `system` say, and then the turns they share."""
    given = read_prompt(row, ("prompt",))
    if shared and shared[0].role != "assistant":  # they contain the prompt
        said = {turn.content.strip() for turn in shared}
        given = [turn for turn in given if turn.content.strip() not in said]
        if any(turn.role != "system" for turn in given):
            raise RowError("has a `prompt` that `chosen` and `rejected` do not share; rename one away with `columns`")
    return with_system(row, given + shared)
