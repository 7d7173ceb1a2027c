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
TRANSCRIPT = re.compile(r"(?:\A|\n\n)(Human|Assistant):")
WITHOUT_TOOLS = "which OLMoE's chat format cannot express; take such rows out"


class RowError(ValueError):
    """A row is not what its format needs; the message says what is missing or wrong."""


def turns(row: Row, key: str) -> Messages:
    """The messages in a list of turns, `role` and `content` or ShareGPT's `from` and `value`.

    Raises:
        RowError: it is no such list, or a turn cannot be kept.
    """
    found = row.get(key)
    if isinstance(found, str) and found.lstrip().startswith("["):  # as a CSV holds it
        try:
            found = json.loads(found)
        except ValueError as error:
            raise RowError(f"`{key}` is not valid JSON ({error})") from None
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
        start = system_message(row)
        if isinstance(value, list):
            return start + turns(row, key)
        if is_transcript(value):
            return start + transcript(value, f"`{key}`", prompt=True)
        asked = text(value, f"`{key}`")
        if key == "instruction" and row.get("input"):
            asked = f"{asked}\n\n{text(row['input'], '`input`')}"
        return [*start, *_history(row), message("user", asked, f"`{key}`")]
    return []


def system_message(row: Row) -> Messages:
    system = row.get("system")
    return [message("system", system, "`system`")] if system else []


def refuse_tools(row: Row) -> None:
    """Tool definitions beside the turns would be left out in silence."""
    if row.get("tools") not in (None, "", [], "[]", "null"):
        raise RowError(f"has `tools`, {WITHOUT_TOOLS}")


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


def _turn(turn: Any, where: str) -> dict[str, str]:
    if not isinstance(turn, Mapping):
        raise RowError(f"{where} must be a turn with a role and a text, found {shown(turn)}")
    role = turn.get("role") if turn.get("role") is not None else turn.get("from")
    if role in TOOL_ROLES:
        raise RowError(f"{where} is a tool turn ({role}), {WITHOUT_TOOLS}")
    if role not in ROLES:
        raise RowError(f"{where} has the role {role!r}; known are {', '.join(ROLES)}")
    for key in UNSAID:
        if turn.get(key):
            raise RowError(f"{where} has `{key}`, {WITHOUT_TOOLS}")
    if turn.get("weight") == 0 or turn.get("train") is False:
        raise RowError(f"{where} is marked as not to be trained on; every assistant turn is: take it out of the row")
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
    messages = []
    for index, pair in enumerate(rounds):
        where = f"`history[{index}]`"
        if not isinstance(pair, list | tuple) or len(pair) != 2:
            raise RowError(f"{where} must be a question and its answer, found {shown(pair)}")
        messages += [message("user", pair[0], where), message("assistant", pair[1], where)]
    return messages
