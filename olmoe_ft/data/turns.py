"""Turns of a conversation as data sets write them -> `Turn`; what cannot be kept is refused.

A turn that the chat format cannot express (a tool call, an image, a weight of 0.5) is an error that names it: left out
in silence, the row would teach something else than it says.
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
# Of a message, beside its content: what is said in another way than to the user.
UNSAID = tuple(
    "tool_calls function_call reasoning reasoning_content thinking thought recipient attachments files".split()
)
CHANNELS = ("final", "")  # of Harmony's messages, those that the user sees
OBJECTS = re.compile(r"\s*\[\s*\{")  # what may be turns as JSON text
LISTED = re.compile(r"""\s*\[\s*\{\s*['"](role|content|from|value)['"]\s*:""")  # what must be
MAY_BE_LISTED = ("messages", "conversations", "prompt", "completion", "chosen", "rejected")
TRANSCRIPT = re.compile(r"(?:\A|\n\n)(Human|Assistant):")
WITHOUT_TOOLS = "which OLMoE's chat format cannot express; take such rows out (`data.malformed: drop` does)"


class Turn(NamedTuple):
    """What one side says. `mark` is what the data set says of learning it, None where it says nothing."""

    role: str
    content: str
    mark: bool | None = None

    @property
    def said(self) -> tuple[str, str]:
        """What is compared where two turns are to be the same."""
        return self.role, self.content


def with_lists(row: Mapping[str, Any]) -> dict[str, Any]:
    """The row with those turns as a list of objects that tables hold otherwise.

    That is as JSON text, as in CSV files, or as one object with a list for each key, as in some Parquet files.

    Raises:
        RowError: such a text is no JSON.
    """
    return {**row, **{key: _listed(row[key], key) for key in MAY_BE_LISTED if key in row}}


def read_turns(row: RowReader, key: str) -> list[Turn]:
    """The turns in a list of them, `role` and `content` or ShareGPT's `from` and `value`. Empty system turns are none.

    Raises:
        RowError: it is no such list, or a turn cannot be kept.
    """
    return turns_of(row, row.get(key), key)


def turns_of(row: RowReader, found: Any, key: str) -> list[Turn]:
    """As `read_turns`, of a list that has been read."""
    found = [found] if is_turn(found) else found
    if not isinstance(found, list) or not found:
        raise RowError(f"`{key}` must be a list of turns, found {shown(found)}")
    turns = [_turn(row, turn, f"`{key}[{index}]`", key) for index, turn in enumerate(found)]
    return [turn for turn in turns if turn is not None]


def is_transcript(value: Any) -> bool:
    """Whether a text is a whole conversation as HH-RLHF writes it."""
    return isinstance(value, str) and TRANSCRIPT.match(value) is not None and "\n\nAssistant:" in value


def transcript(row: RowReader, value: str, where: str, prompt: bool = False) -> list[Turn]:
    """The turns of HH-RLHF's form, `\\n\\nHuman: …\\n\\nAssistant: …`; a prompt ends with an empty assistant turn.

    White space around a turn belongs to the form, not to what is said.
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
    """Turns that stand in another way than as a list of objects, as such a list; anything else as it is."""
    if isinstance(value, Mapping) and all(isinstance(one, list) for one in value.values()) and is_turn(value):
        return [dict(zip(value, turn, strict=False)) for turn in zip(*value.values(), strict=False)]
    if not isinstance(value, str) or not OBJECTS.match(value):
        return value
    try:
        found = DECODER.decode(value)
    except (ValueError, RecursionError) as error:
        if not LISTED.match(value):
            return value
        raise RowError(f"`{key}` is a list of turns as text, but not valid JSON ({json_reason(error)})") from None
    return found if all(map(is_turn, found)) else value


def is_turn(value: Any) -> bool:
    """Whether a value is one turn: an object that says who speaks and what."""
    return isinstance(value, Mapping) and ({"role", "content"} <= value.keys() or {"from", "value"} <= value.keys())


def _turn(row: RowReader, turn: Any, where: str, key: str) -> Turn | None:
    if not isinstance(turn, Mapping):
        raise RowError(f"{where} must be a turn with a role and a text, found {shown(turn)}")
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
        raise RowError(f"{where} has the role {shown(named)}; known are {', '.join(ROLES)}")
    return ROLES[role]


def _either(turn: Mapping[str, Any], key: str, other: str, where: str) -> Any:
    """The value that stands under one of two keys."""
    one, two = turn.get(key), turn.get(other)
    if one is not None and two is not None and one != two:
        raise RowError(f"{where} has both `{key}` and `{other}`, which differ; keep one of them")
    return two if one is None else one


def _note_rest(row: RowReader, turn: Mapping[str, Any], where: str, key: str) -> None:
    """Refuse what else in a turn may matter, and count the rest."""
    known = ("role", "from", "content", "value", *MARKS)
    rest = {name: value for name, value in turn.items() if name not in known and not says_nothing(value)}
    for name in UNSAID:
        if rest.get(name):
            raise RowError(f"{where} has `{name}`, {WITHOUT_TOOLS}")
    if rest.get("channel", "") not in CHANNELS:
        raise RowError(f"{where} is said in the channel {shown(rest['channel'])}, {WITHOUT_TOOLS}")
    refuse_parts(rest, where)
    refuse_marks(rest, where)
    row.note_unread(f"{key}[].", rest)


def _mark(turn: Mapping[str, Any], role: str, where: str, obey: bool) -> bool | None:
    """What the marks of a turn say of learning it.

    Raises:
        RowError: a mark is neither yes nor no, two contradict each other, or one asks for what is not done.
    """
    marks = {name: turn[name] for name in MARKS if not is_blank(turn.get(name))}
    for name, value in marks.items():
        if not isinstance(value, bool | int | float) or value not in (0, 1):
            raise RowError(f"{where} has `{name}` {shown(value)}; a mark is 0, 1, true or false: {leave_out(name)}")
    if not marks:
        return None
    named = ", ".join(f"`{name}`: {shown(value)}" for name, value in marks.items())
    if len({bool(value) for value in marks.values()}) > 1:
        raise RowError(f"{where} has {named}, which contradict each other; keep one")
    mark = bool(next(iter(marks.values())))
    if mark and role != "assistant":
        raise RowError(f"{where} has {named}, and a {role} turn is never learned; {leave_out(*marks)}")
    if not mark and role == "assistant" and not obey:
        raise RowError(
            f"{where} has {named}: marked as not to be learned. Stage sft obeys such marks with "
            f"`data.turn_marks: obey`; otherwise {leave_out(*marks)}"
        )
    return mark
