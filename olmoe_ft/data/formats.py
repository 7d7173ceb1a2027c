"""Recognise what a row is and turn it into a conversation or a preference pair.

A conversation is a list of `{"role", "content"}` messages; a pair is a prompt (messages), a chosen and a rejected
answer (one assistant message each). A row that cannot be read raises `RowError` with the reason; nothing is dropped.
"""

from collections.abc import Callable, Mapping
from typing import Any

Row = Mapping[str, Any]
Messages = list[dict[str, str]]

ROLES = {
    "system": "system",
    "user": "user",
    "human": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "bot": "assistant",
    "model": "assistant",
}


class RowError(ValueError):
    """A row is not what its format needs; the message says what is missing or wrong."""


def conversation(row: Row, format: str | None = None) -> Messages:
    """The messages a row trains on.

    Args:
        row: one row, as read from the file.
        format: "messages", "prompt_completion", "alpaca" or "sharegpt"; None recognises it by the row's keys.
    Raises:
        RowError: if the format is not recognised, a part is missing, or there is no assistant turn to learn.
    """
    messages = _read(row, format, CONVERSATIONS)
    if not any(message["role"] == "assistant" for message in messages):
        raise RowError("has no assistant turn, so there is nothing to learn from it")
    return messages


def preference_pair(row: Row, format: str | None = None) -> dict[str, Messages]:
    """The prompt and its two answers, as `{"prompt", "chosen", "rejected"}`.

    Args:
        row: has `chosen` and `rejected`. Either both are whole transcripts, and what they share is the prompt; or each
            is a text or one message, and the prompt stands in `prompt`, `instruction`, `question`, `conversations` or
            `messages`.
        format: "preference" or None.
    Raises:
        RowError: if an answer or the prompt is missing.
    """
    if format not in (None, "preference"):
        raise RowError(f"format {format!r} gives no preference pairs: use 'preference'")
    chosen, rejected = (_answer_messages(row, key) for key in ("chosen", "rejected"))
    if len(chosen) > 1 and len(rejected) > 1:  # whole transcripts: what they share is the prompt
        prompt = _common_prefix(chosen, rejected)
        chosen, rejected = chosen[len(prompt) :], rejected[len(prompt) :]
    else:
        prompt = _prompt_messages(row)
    if not prompt:
        raise RowError("has no prompt: give `prompt`, or transcripts that start with the same user turn")
    for name, answer in (("chosen", chosen), ("rejected", rejected)):
        if [message["role"] for message in answer] != ["assistant"]:
            raise RowError(f"`{name}` must add one assistant turn to the prompt, and it adds {len(answer)} turns")
    return {"prompt": prompt, "chosen": chosen, "rejected": rejected}


def conversation_prompt(row: Row) -> Messages:
    """The turns up to the one a model is to answer.

    Raises:
        RowError: there is no prompt, or it ends with an assistant turn.
    """
    if not isinstance(row, Mapping):
        raise RowError(f"a row must be an object with named fields, found {_shown(row)}")
    prompt = _prompt_messages(row)
    if not prompt or prompt[-1]["role"] != "user":
        raise RowError("needs a prompt (`messages` or `prompt`) that ends with a user turn")
    return prompt


def _read(row: Row, format: str | None, readers: Mapping[str, tuple[tuple[str, ...], Callable]]) -> Messages:
    if format is not None and format not in readers:
        raise RowError(f"format {format!r} gives no conversations: use one of {', '.join(readers)}")
    for name, (keys, reader) in readers.items():
        if format == name or (format is None and all(key in row for key in keys)):
            return reader(row)
    known = "; ".join(f"{name} ({', '.join(keys)})" for name, (keys, _) in readers.items())
    raise RowError(f"has the keys {', '.join(sorted(row))}, which is none of the known formats: {known}")


def _messages(row: Row) -> Messages:
    return _turns(row, "messages")


def _sharegpt(row: Row) -> Messages:
    system = row.get("system")
    start = [_message("system", system, "`system`")] if system else []
    return start + _turns(row, "conversations")


def _prompt_completion(row: Row) -> Messages:
    prompt = _prompt_messages(row)
    if isinstance(row.get("completion"), list):
        return prompt + _turns(row, "completion")
    return [*prompt, _message("assistant", row.get("completion"), "`completion`")]


def _alpaca(row: Row) -> Messages:
    prompt = _prompt_messages({key: row[key] for key in ("system", "instruction", "input") if key in row})
    return [*prompt, _message("assistant", row.get("output"), "`output`")]


CONVERSATIONS: dict[str, tuple[tuple[str, ...], Callable[[Row], Messages]]] = {
    "messages": (("messages",), _messages),
    "sharegpt": (("conversations",), _sharegpt),
    "prompt_completion": (("prompt", "completion"), _prompt_completion),
    "alpaca": (("instruction", "output"), _alpaca),
}


def _turns(row: Row, key: str) -> Messages:
    turns = row.get(key)
    if not isinstance(turns, list) or not turns:
        raise RowError(f"`{key}` must be a list of turns, found {_shown(turns)}")
    return [_turn(turn, f"`{key}[{index}]`") for index, turn in enumerate(turns)]


def _turn(turn: Any, where: str) -> dict[str, str]:
    if not isinstance(turn, Mapping):
        raise RowError(f"{where} must be a turn with a role and a text, found {_shown(turn)}")
    role, content = turn.get("role", turn.get("from")), turn.get("content", turn.get("value"))
    if role not in ROLES:
        raise RowError(f"{where} has the role {role!r}; known are {', '.join(ROLES)}")
    if turn.get("tool_calls"):
        raise RowError(f"{where} calls tools, which the chat format cannot express: remove such rows first")
    return _message(ROLES[role], content, where)


def _message(role: str, content: Any, where: str) -> dict[str, str]:
    return {"role": role, "content": _text(content, where)}


def _text(value: Any, where: str) -> str:
    if not isinstance(value, str) or not value.strip():
        raise RowError(f"{where} must be a text that is not empty, found {_shown(value)}")
    return value


def _prompt_messages(row: Row) -> Messages:
    """The prompt of a row, from the first of its usual keys that is there; nothing where none is."""
    for key in ("prompt", "instruction", "question", "conversations", "messages"):
        value = row.get(key)
        if value is None:
            continue
        start = [_message("system", row["system"], "`system`")] if row.get("system") else []
        if isinstance(value, list):
            return start + _turns(row, key)
        text = _text(value, f"`{key}`")
        if key == "instruction" and row.get("input"):
            text = f"{text}\n\n{_text(row['input'], '`input`')}"
        return [*start, _message("user", text, f"`{key}`")]
    return []


def _answer_messages(row: Row, key: str) -> Messages:
    answer = row.get(key)
    if isinstance(answer, Mapping):
        return [_turn(answer, f"`{key}`")]
    if isinstance(answer, list):
        return _turns(row, key)
    return [_message("assistant", answer, f"`{key}`")]


def _common_prefix(chosen: Messages, rejected: Messages) -> Messages:
    length = 0
    for left, right in zip(chosen[:-1], rejected[:-1], strict=False):
        if left != right:
            break
        length += 1
    return chosen[:length]


def _shown(value: Any) -> str:
    return "nothing" if value is None else repr(value)[:60]
