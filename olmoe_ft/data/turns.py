"""Turns of a conversation as datasets write them -> `Turn`; what the chat format cannot express is refused.

A tool call, an image or a weight of 0.5 is an error that names it. If it were left out without a word, the row would
teach something else than it says.
"""

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from olmoe_ft.data.content import joined, text
from olmoe_ft.data.json_rows import DECODER, json_reason
from olmoe_ft.data.reader import RowReader
from olmoe_ft.data.rows import RowError, is_blank, says_nothing, shown
from olmoe_ft.data.unread import MARKS, leave_out, refuse_marks, refuse_parts

ROLES = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "human": "user",
    "prompter": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "chatbot": "assistant",
    "bot": "assistant",
    "model": "assistant",
    "ai": "assistant",
}
TOOL_ROLES = {"tool", "tool_call", "tool_response", "function", "function_call", "function_response", "observation"}
# Keys of a message, besides its content, with something that is not said to the user.
UNSAID = tuple(
    "tool_calls function_call reasoning reasoning_content thinking thought recipient attachments files".split()
)
CHANNELS = ("final", "")  # of Harmony's channels, those that the user sees
OBJECTS = re.compile(r"\s*\[\s*\{")  # text that may be turns as JSON
LISTED = re.compile(r"""\s*\[\s*\{\s*['"](role|content|from|value)['"]\s*:""")  # text that must be turns
MAY_BE_LISTED = ("messages", "conversations", "prompt", "completion", "chosen", "rejected")
TRANSCRIPT = re.compile(r"(?:\A|\n\n)(Human|Assistant):")
WITHOUT_TOOLS = "which OLMoE's chat format cannot express; remove such rows (`data.malformed: drop` does)"


class Turn(NamedTuple):
    """One turn. `mark` is whether the dataset says to learn it; None if it does not say."""

    role: str
    content: str
    mark: bool | None = None

    @property
    def said(self) -> tuple[str, str]:
        """What must be equal for two turns to count as the same."""
        return self.role, self.content


def with_lists(row: Mapping[str, Any]) -> dict[str, Any]:
    """The row with its turns as lists of objects, where a table has them in another form.

    That is JSON text, as in CSV files, or one object with a list for each key, as in some Parquet files.

    Raises:
        RowError: the text is not valid JSON.
    """
    return {**row, **{key: _listed(row[key], key) for key in MAY_BE_LISTED if key in row}}


def read_turns(row: RowReader, key: str) -> list[Turn]:
    """The turns in a list, with `role` and `content` or ShareGPT's `from` and `value`. Empty system turns are left out.

    Raises:
        RowError: it is not such a list, or a turn cannot be kept.
    """
    return turns_of(row, row.get(key), key)


def turns_of(row: RowReader, found: Any, key: str) -> list[Turn]:
    """As `read_turns`, for a list that was read already."""
    found = [found] if is_turn(found) else found
    if not isinstance(found, list) or not found:
        raise RowError(f"`{key}`: found {shown(found)}; allowed: a list of turns")
    turns = [_turn(row, turn, f"`{key}[{index}]`", key) for index, turn in enumerate(found)]
    return [turn for turn in turns if turn is not None]


def is_transcript(value: Any) -> bool:
    """Whether a text is a whole conversation as HH-RLHF writes it."""
    return isinstance(value, str) and TRANSCRIPT.match(value) is not None and "\n\nAssistant:" in value


def transcript(row: RowReader, value: str, where: str, prompt: bool = False) -> list[Turn]:
    """The turns of HH-RLHF's format, `\\n\\nHuman: …\\n\\nAssistant: …`; a prompt ends with an empty assistant turn.

    White space around a turn belongs to the format, not to the turn.
    """
    _, *parts = TRANSCRIPT.split(value)
    said = list(zip(parts[::2], parts[1::2], strict=True))
    if prompt and not said[-1][1].strip():
        said.pop()
    roles = {"Human": "user", "Assistant": "assistant"}
    return [
        Turn(roles[who], text(words.strip(), f"{where}, turn {index}", row)) for index, (who, words) in enumerate(said)
    ]


def _listed(value: Any, key: str) -> Any:
    """Turns in another form, as a list of objects; anything else is returned unchanged."""
    if isinstance(value, Mapping) and all(isinstance(one, list) for one in value.values()) and is_turn(value):
        return [dict(zip(value, turn, strict=False)) for turn in zip(*value.values(), strict=False)]
    if not isinstance(value, str) or not OBJECTS.match(value):
        return value
    try:
        found = DECODER.decode(value)
    except (ValueError, RecursionError) as error:
        if not LISTED.match(value):
            return value
        raise RowError(f"`{key}` is a text with a list of turns, but not valid JSON ({json_reason(error)})") from None
    return found if all(map(is_turn, found)) else value


def is_turn(value: Any) -> bool:
    """Whether a value is one turn: an object with a role and a text."""
    return isinstance(value, Mapping) and ({"role", "content"} <= value.keys() or {"from", "value"} <= value.keys())


def _turn(row: RowReader, turn: Any, where: str, key: str) -> Turn | None:
    if not isinstance(turn, Mapping):
        raise RowError(f"{where}: found {shown(turn)}; allowed: a turn with a role and a text")
    turn = row.without_ignored(turn, f"{key}[].")
    role, content = _role(turn, where), _either(turn, "content", "value", where)
    _note_rest(row, turn, where, key)
    mark = _mark(turn, role, where, row.reading.obey_marks)
    if role == "system" and is_blank(joined(content, where, row)):
        return None
    return Turn(role, text(content, where, row), mark)


def _role(turn: Mapping[str, Any], where: str) -> str:
    named = _either(turn, "role", "from", where)
    role = named.strip().lower() if isinstance(named, str) else ""
    if role in TOOL_ROLES:
        raise RowError(f"{where} is a tool turn ({role}), {WITHOUT_TOOLS}")
    if role not in ROLES:
        raise RowError(f"{where}: found the role {shown(named)}; allowed: {', '.join(ROLES)}")
    return ROLES[role]


def _either(turn: Mapping[str, Any], key: str, other: str, where: str) -> Any:
    """The value of whichever of two keys is there."""
    one, two = turn.get(key), turn.get(other)
    if one is not None and two is not None and one != two:
        raise RowError(f"{where} has both `{key}` and `{other}`, which differ; keep one of them")
    return two if one is None else one


def _note_rest(row: RowReader, turn: Mapping[str, Any], where: str, key: str) -> None:
    """Refuse other keys of a turn that may matter, and count the rest."""
    known = ("role", "from", "content", "value", *MARKS)
    rest = {name: value for name, value in turn.items() if name not in known and not says_nothing(value)}
    for name in UNSAID:
        if rest.get(name):
            raise RowError(f"{where} has `{name}`, {WITHOUT_TOOLS}")
    if rest.get("channel", "") not in CHANNELS:
        raise RowError(f"{where} is in the channel {shown(rest['channel'])}, {WITHOUT_TOOLS}")
    refuse_parts(rest, where)
    refuse_marks(rest, where)
    row.note_unread(f"{key}[].", rest)


def _mark(turn: Mapping[str, Any], role: str, where: str, obey: bool) -> bool | None:
    """Whether the marks of a turn say to learn it; None without marks.

    Raises:
        RowError: a mark is neither yes nor no, two contradict each other, or one asks for something that is not done.
    """
    marks = {name: turn[name] for name in MARKS if not is_blank(turn.get(name))}
    for name, value in marks.items():
        if not isinstance(value, bool | int | float) or value not in (0, 1):
            raise RowError(f"{where}: found `{name}` {shown(value)}; allowed: 0, 1, true, false; {leave_out(name)}")
    if not marks:
        return None
    named = ", ".join(f"`{name}`: {shown(value)}" for name, value in marks.items())
    if len({bool(value) for value in marks.values()}) > 1:
        raise RowError(f"{where} has {named}, which contradict each other; keep one of them")
    mark = bool(next(iter(marks.values())))
    if mark and role != "assistant":
        raise RowError(f"{where} has {named}, but a {role} turn is never learned; {leave_out(*marks)}")
    if not mark and role == "assistant" and not obey:
        raise RowError(
            f"{where} has {named}, which says not to learn it; set `data.turn_marks: obey` to obey "
            f"such marks in stage sft; otherwise {leave_out(*marks)}"
        )
    return mark
