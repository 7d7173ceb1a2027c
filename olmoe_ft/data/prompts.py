"""The prompt of a row: everything before the answer, whichever key it is in."""

import re
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from olmoe_ft.data.content import text
from olmoe_ft.data.json_rows import DECODER
from olmoe_ft.data.reader import RowReader
from olmoe_ft.data.rows import RowError, is_blank, says_nothing, shown
from olmoe_ft.data.turns import Turn, is_transcript, is_turn, transcript, turns_of
from olmoe_ft.data.unread import refuse_parts

HALF_A_TRANSCRIPT = re.compile(r"(^|\n)Human: .*\n+Assistant:", re.DOTALL)
PROMPT_KEYS = ("prompt", "instruction", "question", "conversations", "messages")


def read_prompt(row: RowReader, keys: tuple[str, ...] = PROMPT_KEYS) -> list[Turn]:
    """The prompt of a row, from the first of the keys that has one; empty if none does.

    Raises:
        RowError: a part of it cannot be read.
    """
    present = [key for key in keys if row.row.get(key) is not None]
    filled = [key for key in present if row.is_filled(key)]
    if "instruction" in keys and "instruction" in row.row and row.is_filled("input"):  # Alpaca's, in one key or both
        filled = filled or ["instruction"]
    if not (filled or present):
        return []
    key = (filled or present)[0]
    value = row.get(key)
    if isinstance(value, list) or is_turn(value):
        return with_system(row, turns_of(row, value, key))
    if isinstance(value, Mapping) and isinstance(value.get("messages"), list):  # OpenAI's preference files
        rest = {name: one for name, one in value.items() if name != "messages" and not says_nothing(one)}
        refuse_parts(rest, f"`{key}`")
        row.note_unread(f"{key}.", rest)
        return with_system(row, turns_of(row, value["messages"], f"{key}.messages"))
    if is_transcript(value):
        return with_system(row, transcript(row, value, f"`{key}`", prompt=True))
    if isinstance(value, str) and HALF_A_TRANSCRIPT.search(value):
        row.note_doubt(f"{key} (looks like a transcript, but was read as one turn)")
    asked = _instruction(row) if key == "instruction" else text(value, f"`{key}`", row)
    return with_system(row, [*_history(row), Turn("user", asked)])


def with_system(row: RowReader, turns: list[Turn]) -> list[Turn]:
    """The turns, preceded by the row's own `system` or `system_prompt` if it has one.

    Raises:
        RowError: the turns begin with another system turn.
    """
    for key in ("system", "system_prompt"):
        if is_blank(row.get(key)):
            continue
        system = Turn("system", text(row.get(key), f"`{key}`", row))
        if not turns or turns[0].role != "system":
            return [system, *turns]
        if turns[0].said != system.said:
            raise RowError(f"has `{key}` and also another system turn; remove one of them, or rename it with `columns`")
    return turns


def _instruction(row: RowReader) -> str:
    """Alpaca's question: `instruction`, `input`, or both, one of which may be empty."""
    parts = {key: row.get(key) for key in ("instruction", "input")}
    filled = {key: value for key, value in parts.items() if not is_blank(value)}
    filled = filled or {"instruction": parts["instruction"]}
    return "\n\n".join(text(value, f"`{key}`", row) for key, value in filled.items())


def _history(row: RowReader) -> list[Turn]:
    """Earlier rounds of an Alpaca row, `[[question, answer], …]`."""
    rounds: Any = row.get("history")
    if isinstance(rounds, str) and rounds.lstrip().startswith("[["):  # as in a CSV file
        with suppress(ValueError, RecursionError):
            rounds = DECODER.decode(rounds)
    rounds = [] if says_nothing(rounds) else rounds
    if not isinstance(rounds, list):
        raise RowError(f"`history`: found {shown(rounds)}; allowed: a list of [question, answer]")
    turns = []
    for index, pair in enumerate(rounds):
        where = f"`history[{index}]`"
        if not isinstance(pair, list | tuple) or len(pair) != 2:
            raise RowError(f"{where}: found {shown(pair)}; allowed: [question, answer]")
        turns += [Turn("user", text(pair[0], where, row)), Turn("assistant", text(pair[1], where, row))]
    return turns
