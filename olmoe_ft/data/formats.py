"""Recognise what a row is and turn it into a conversation, a plain text or a preference pair.

A conversation is a list of `{"role", "content"}` messages; a pair is a prompt (messages), a chosen and a rejected
answer (one assistant message each). A row that cannot be read raises `RowError` with the reason.
"""

from collections.abc import Callable, Mapping
from typing import Any

from olmoe_ft.data.turns import (
    Messages,
    Row,
    RowError,
    is_transcript,
    message,
    prompt_messages,
    refuse_tools,
    shown,
    text,
    transcript,
    turns,
    with_lists,
    with_system,
)

Example = dict[str, Any]


def training_example(row: Any, format: str | None = None) -> Example:
    """What an SFT row trains on: `{"messages"}`, or `{"text"}` for a row of plain text.

    Args:
        row: one row, as read from the file.
        format: "messages", "sharegpt", "prompt_completion", "alpaca" or "text"; None recognises it by the keys.
    Raises:
        RowError: if the format is not recognised, a part is missing, or there is no assistant turn to learn.
    """
    row = _object(row)
    if format is not None and format not in CONVERSATIONS and format != "text":
        raise RowError(f"format {format!r} gives no conversations: use one of {', '.join([*CONVERSATIONS, 'text'])}")
    for name, (needed, reader) in CONVERSATIONS.items():
        if format == name or (format is None and _has(row, needed)):
            messages = reader(row)
            if not any(turn["role"] == "assistant" for turn in messages):
                raise RowError("has no assistant turn, so there is nothing to learn from it")
            return {"messages": messages}
    if format == "text" or (format is None and _has(row, ("text",))):
        return {"text": text(row.get("text"), "`text`")}
    if _has(row, ("chosen", "rejected")):
        raise RowError("is a preference pair (`chosen`, `rejected`), which stage dpo learns from and sft does not")
    known = "; ".join(f"{name} ({', '.join(keys)})" for name, (keys, _) in CONVERSATIONS.items())
    raise RowError(
        f"has {_keys(row)}, which is none of the known formats: {known}; text (text). "
        "Rename its keys with `columns`, or name a `format`"
    )


def preference_pair(row: Any, format: str | None = None) -> Example:
    """The prompt and its two answers, as `{"prompt", "chosen", "rejected"}`.

    Args:
        row: has `chosen` and `rejected`. Either both are whole transcripts (messages, or HH-RLHF's text), and what they
            share is the prompt; or each is a text or one message, and the prompt stands in `prompt`, `instruction`,
            `question`, `conversations` or `messages`.
        format: "preference" or None.
    Raises:
        RowError: if an answer or the prompt is missing, or what follows the prompt is not one answer each.
    """
    row = _object(row)
    if format not in (None, "preference"):
        raise RowError(f"format {format!r} gives no preference pairs: use 'preference'")
    if not _has(row, ("chosen", "rejected")):
        raise RowError(
            f"has {_keys(row)}; a preference pair needs `chosen` and `rejected` (rename keys with `columns`)"
        )
    chosen, rejected = (_answer(row, key) for key in ("chosen", "rejected"))
    if len(chosen) > 1 and len(rejected) > 1:  # whole transcripts
        refuse_tools(row)
        shared = _common_prefix(chosen, rejected)
        prompt, chosen, rejected = _shared_prompt(row, shared), chosen[len(shared) :], rejected[len(shared) :]
    else:
        prompt = prompt_messages(row)
    if not prompt or prompt[-1]["role"] != "user":
        raise RowError(
            "has no prompt that ends with a user turn: give `prompt`, or transcripts that start with the same turns"
        )
    for name, answer in (("chosen", chosen), ("rejected", rejected)):
        if [turn["role"] for turn in answer] != ["assistant"]:
            raise RowError(f"`{name}` must add one assistant turn to the prompt, and it adds {len(answer)} turns")
    return {"prompt": prompt, "chosen": chosen, "rejected": rejected}


def conversation_prompt(row: Any) -> Messages:
    """The turns up to the one a model is to answer.

    Raises:
        RowError: there is no prompt, or it ends with an assistant turn.
    """
    prompt = prompt_messages(_object(row))
    if not prompt or prompt[-1]["role"] != "user":
        raise RowError("needs a prompt (`messages` or `prompt`) that ends with a user turn")
    return prompt


def _object(row: Any) -> Row:
    if not isinstance(row, Mapping):
        raise RowError(f"a row must be an object with named fields, found {shown(row)}")
    return with_lists(row)


def _keys(row: Row) -> str:
    return ", ".join(str(key) if row[key] is not None else f"{key} (null)" for key in row) or "no keys"


def _has(row: Row, keys: tuple[str, ...]) -> bool:
    return all(row.get(key) is not None for key in keys)  # a table gives every row all keys


def _messages(row: Row) -> Messages:
    refuse_tools(row)
    return with_system(row, turns(row, "messages"))


def _sharegpt(row: Row) -> Messages:
    refuse_tools(row)
    return with_system(row, turns(row, "conversations"))


def _prompt_completion(row: Row) -> Messages:
    prompt = prompt_messages(row)
    if isinstance(row.get("completion"), list):
        return prompt + turns(row, "completion")
    return [*prompt, message("assistant", row.get("completion"), "`completion`")]


def _alpaca(row: Row) -> Messages:
    others = ("prompt", "question", "conversations", "messages")  # of other formats
    named = {key: value for key, value in row.items() if key not in others}
    return [*prompt_messages(named), message("assistant", row.get("output"), "`output`")]


CONVERSATIONS: dict[str, tuple[tuple[str, ...], Callable[[Row], Messages]]] = {
    "messages": (("messages",), _messages),
    "sharegpt": (("conversations",), _sharegpt),
    "prompt_completion": (("prompt", "completion"), _prompt_completion),
    "alpaca": (("instruction", "output"), _alpaca),
}


def _answer(row: Row, key: str) -> Messages:
    answer = row[key]
    if isinstance(answer, Mapping):
        return turns({key: [answer]}, key)
    if isinstance(answer, list):
        return turns(row, key)
    if is_transcript(answer):
        return transcript(answer, f"`{key}`")
    return [message("assistant", answer, f"`{key}`")]


def _common_prefix(chosen: Messages, rejected: Messages) -> Messages:
    length = 0
    for left, right in zip(chosen[:-1], rejected[:-1], strict=False):
        if left != right:
            break
        length += 1
    return chosen[:length]


def _shared_prompt(row: Row, shared: Messages) -> Messages:
    """The prompt of two transcripts: the turns they share, and before them what only `prompt` and `system` say."""
    given = prompt_messages({"prompt": row.get("prompt")})
    if shared and shared[0]["role"] != "assistant":  # the prompt stands in them
        said = {turn["content"].strip() for turn in shared}
        given = [turn for turn in given if turn["content"].strip() not in said]
        if any(turn["role"] != "system" for turn in given):
            raise RowError("has a `prompt` that `chosen` and `rejected` do not share; rename one away with `columns`")
    return with_system(row, given + shared)
