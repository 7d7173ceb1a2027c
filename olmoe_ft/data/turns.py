"""Turns of a conversation as data sets write them -> messages `{"role", "content"}`; what cannot be kept is refused.

A turn that the chat format cannot express (a tool call, an image, a turn with weight 0) is an error that names it:
left out in silence, the row would teach something else than it says.
"""

import json
import re
from collections.abc import Mapping
from typing import Any

Row = Mapping[str, Any]
Messages = list[dict[str, str]]

ROLES = {
    "system": "system",
    "user": "user",
    "human": "user",
    "prompter": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "bot": "assistant",
    "model": "assistant",
    "ai": "assistant",
}
TOOL_ROLES = {"tool", "tool_call", "tool_response", "function", "function_call", "function_response", "observation"}
UNSAID = ("tool_calls", "function_call", "reasoning_content", "thinking")  # of a message, beside its content
LISTED = re.compile(r"""\s*\[\s*\{\s*['"](role|content|from|value)['"]\s*:""")  # turns that a table holds as text
MAY_BE_LISTED = ("messages", "conversations", "prompt", "completion", "chosen", "rejected")
TRANSCRIPT = re.compile(r"(?:\A|\n\n)(Human|Assistant):")
WITHOUT_TOOLS = "which OLMoE's chat format cannot express; take such rows out"


class RowError(ValueError):
    """A row is not what its format needs; the message says what is missing or wrong."""


def with_lists(row: Row) -> Row:
    """The row with those turns as lists that a table without lists, such as CSV, holds as JSON text.

    Raises:
        RowError: such a text is no JSON.
    """
    return {**row, **{key: _listed(row[key], key) for key in MAY_BE_LISTED if isinstance(row.get(key), str)}}


def _listed(value: str, key: str) -> Any:
    if not LISTED.match(value):
        return value
    try:
        found = json.loads(value)
    except (ValueError, RecursionError) as error:
        raise RowError(f"`{key}` is a list of turns as text, but not valid JSON ({error})") from None
    keys = [turn.keys() & {"role", "from"} if isinstance(turn, Mapping) else () for turn in found]
    return found if all(keys) else value


def turns(row: Row, key: str) -> Messages:
    """The messages in a list of turns, `role` and `content` or ShareGPT's `from` and `value`.

    Raises:
        RowError: it is no such list, or a turn cannot be kept.
    """
    found = row.get(key)
    if not isinstance(found, list) or not found:
        raise RowError(f"`{key}` must be a list of turns, found {shown(found)}")
    return [_turn(turn, f"`{key}[{index}]`") for index, turn in enumerate(found)]


def message(role: str, content: Any, where: str) -> dict[str, str]:
    return {"role": role, "content": text(content, where)}


def text(value: Any, where: str) -> str:
    """A text with something in it.

    Raises:
        RowError: it is none, is empty, or holds half a character.
    """
    if isinstance(value, list) and value and all(isinstance(part, Mapping) for part in value):
        value = "".join(_part(part, where) for part in value)
    if not isinstance(value, str) or not value.strip():
        raise RowError(f"{where} must be a text that is not empty, found {shown(value)}")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise RowError(f"{where} holds half of a character pair (a lone surrogate), which is no text") from None
    return value


def prompt_messages(row: Row) -> Messages:
    """The prompt of a row, from the first of its usual keys that is there; nothing where none is."""
    refuse_tools(row)
    for key in ("prompt", "instruction", "question", "conversations", "messages"):
        value = row.get(key)
        if value is None:
            continue
        if isinstance(value, list):
            return with_system(row, turns(row, key))
        if is_transcript(value):
            return with_system(row, transcript(value, f"`{key}`", prompt=True))
        asked = text(value, f"`{key}`")
        if key == "instruction" and not _blank(row.get("input")):
            asked = f"{asked}\n\n{text(row['input'], '`input`')}"
        return with_system(row, [*_history(row), message("user", asked, f"`{key}`")])
    return []


def with_system(row: Row, messages: Messages) -> Messages:
    """The turns after the system turn that stands beside them in the row.

    Raises:
        RowError: they begin with another one.
    """
    for key in ("system", "system_prompt"):
        if _blank(row.get(key)):
            continue
        system = message("system", row[key], f"`{key}`")
        if not messages or messages[0]["role"] != "system":
            return [system, *messages]
        if messages[0] != system:
            raise RowError(f"has `{key}` and another system turn; take one of them out, or rename it with `columns`")
    return messages


def refuse_tools(row: Row) -> None:
    """Tool definitions beside the turns would be left out in silence."""
    for key in ("tools", "functions"):
        if row.get(key) not in (None, "", [], "[]", "null"):
            raise RowError(f"has `{key}`, {WITHOUT_TOOLS}")


def is_transcript(value: Any) -> bool:
    """Whether a text is a whole conversation as HH-RLHF writes it."""
    return isinstance(value, str) and TRANSCRIPT.match(value) is not None and "\n\nAssistant:" in value


def transcript(value: str, where: str, prompt: bool = False) -> Messages:
    """The turns of HH-RLHF's form, `\\n\\nHuman: …\\n\\nAssistant: …`; a prompt ends with an empty assistant turn."""
    _, *parts = TRANSCRIPT.split(value)
    said = list(zip(parts[::2], parts[1::2], strict=True))
    if prompt and not said[-1][1].strip():
        said.pop()
    roles = {"Human": "user", "Assistant": "assistant"}
    return [message(roles[who], words.strip(), f"{where}, turn {index}") for index, (who, words) in enumerate(said)]


def shown(value: Any) -> str:
    return "nothing" if value is None else repr(value)[:60]


def _blank(value: Any) -> bool:
    return value is None or (isinstance(value, str) and not value.strip())


def _turn(turn: Any, where: str) -> dict[str, str]:
    if not isinstance(turn, Mapping):
        raise RowError(f"{where} must be a turn with a role and a text, found {shown(turn)}")
    named = turn.get("role") if turn.get("role") is not None else turn.get("from")
    role = named.lower() if isinstance(named, str) else ""
    if role in TOOL_ROLES:
        raise RowError(f"{where} is a tool turn ({role}), {WITHOUT_TOOLS}")
    if role not in ROLES:
        raise RowError(f"{where} has the role {shown(named)}; known are {', '.join(ROLES)}")
    for key in UNSAID:
        if turn.get(key):
            raise RowError(f"{where} has `{key}`, {WITHOUT_TOOLS}")
    if turn.get("weight", 1) not in (None, 1) or False in (turn.get("train"), turn.get("loss_mask")):
        raise RowError(f"{where} is marked as not to be trained on like others; every assistant turn is: take it out")
    content = turn.get("content") if turn.get("content") is not None else turn.get("value")
    return message(ROLES[role], content, where)


def _part(part: Mapping[str, Any], where: str) -> str:
    """One part of a content in OpenAI's form, `{"type": "text", "text": …}`."""
    if part.get("type") != "text" or not isinstance(part.get("text"), str):
        raise RowError(f"{where} has a part of type {part.get('type')!r}; OLMoE reads text alone")
    return part["text"]


def _history(row: Row) -> Messages:
    """Earlier rounds of an Alpaca row, `[[question, answer], …]`."""
    rounds = row.get("history") or []
    if not isinstance(rounds, list):
        raise RowError(f"`history` must be a list of questions and answers, found {shown(rounds)}")
    messages = []
    for index, pair in enumerate(rounds):
        where = f"`history[{index}]`"
        if not isinstance(pair, list | tuple) or len(pair) != 2:
            raise RowError(f"{where} must be a question and its answer, found {shown(pair)}")
        messages += [message("user", pair[0], where), message("assistant", pair[1], where)]
    return messages
