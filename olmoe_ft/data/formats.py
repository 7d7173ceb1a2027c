"""Recognise the format of a row and convert it to a conversation or a plain text (`pairs` does preference pairs).

A conversation is a list of `{"role", "content"}` messages, with a list that says which of them are learned. A row that
cannot be read raises `RowError` with the reason.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from olmoe_ft.data.content import text
from olmoe_ft.data.prompts import read_prompt, with_system
from olmoe_ft.data.reader import RowReader
from olmoe_ft.data.rows import USUAL, Reading, RowError, Unreadable, shown, shown_keys, texts_in
from olmoe_ft.data.suggest import shape_hint, with_columns
from olmoe_ft.data.turns import Turn, is_transcript, is_turn, read_turns, with_lists
from olmoe_ft.stages import STAGES

Example = dict[str, Any]


class Read(NamedTuple):
    """The turns of a row."""

    turns: list[Turn]
    completion: int | None = None
    """The index of the first turn of the row's completion; None if it has none."""
    transcript: bool = False
    """Whether the prompt is a text in HH-RLHF's format."""


class UnknownForm(RowError):
    """A row has no known format. `advice` says what to do if no other hint fits."""

    def __init__(self, message: str, advice: str = "") -> None:
        super().__init__(message)
        self.advice = advice


def training_example(row: Any, format: str | None = None, reading: Reading = USUAL) -> Example:
    """The training example of an SFT row.

    Args:
        row: one row, as read from the file.
        format: "messages", "sharegpt", "prompt_completion", "alpaca" or "text"; None recognises it by the keys.
    Returns:
        `messages` and `learned` (for each message, whether it is), or `text`; `form`, the format it was read as;
        `unread`, the keys that were not read, and `doubtful`, those of them that may matter.
    Raises:
        RowError: the format is not recognised, a part is missing, or there is no assistant turn to learn.
    """
    if format is not None and format not in CONVERSATIONS and format != "text":
        raise RowError(
            f"found format {format!r}, which has no conversations; allowed: {', '.join([*CONVERSATIONS, 'text'])}"
        )
    reader = row_reader(row, reading)
    try:
        return _example(reader, format)
    except UnknownForm as error:
        hint = with_columns(reader.row, lambda renamed: _example(row_reader(renamed, USUAL), None))
        raise RowError(f"{error}{hint or shape_hint(reader.row) or error.advice}") from None


def _example(reader: RowReader, format: str | None) -> Example:
    form = format or recognised(reader)
    if form == "text":
        document = text(reader.get("text"), "`text`", reader)
        return {"text": document, "form": form, **reader.unread([document])}
    read = CONVERSATIONS[form][1](reader)
    if not any(turn.role == "assistant" for turn in read.turns):
        raise RowError("has no assistant turn, so there is nothing to learn from it")
    return {
        "messages": messages(read.turns),
        "learned": _learned(read, form, reader.reading),
        "form": form + (" (transcript)" if read.transcript else "") + (" (as JSON text)" if reader.as_text else ""),
        **reader.unread(turn.content for turn in read.turns),
    }


def conversation_prompt(row: Any, reading: Reading = USUAL) -> list[dict[str, str]]:
    """The turns up to the one that a model should answer, as messages.

    Raises:
        RowError: there is no prompt, or it ends with an assistant turn.
    """
    reader = row_reader(row, reading)
    prompt = read_prompt(reader)
    if not prompt or prompt[-1].role != "user":
        raise RowError("needs a prompt (`messages` or `prompt`) that ends with a user turn")
    reader.unread(turn.content for turn in prompt)
    return messages(prompt)


def row_reader(row: Any, reading: Reading) -> RowReader:
    """A reader for a row.

    Raises:
        RowError: it is not a row.
    """
    if isinstance(row, Unreadable):
        raise RowError(row.reason)
    if not isinstance(row, Mapping):
        raise RowError(f"found {shown(row)}; allowed: an object with named fields")
    listed = with_lists(row)
    reader = RowReader(listed, reading)
    reader.as_text = any(isinstance(row[key], str) and listed[key] is not row[key] for key in row)
    return reader


def messages(turns: list[Turn]) -> list[dict[str, str]]:
    return [{"role": turn.role, "content": turn.content} for turn in turns]


def recognised(reader: RowReader) -> str:
    """The name of a row's format: the first whose keys are all filled, otherwise the first whose keys are all there.

    Raises:
        RowError: no format fits.
    """
    row = reader.row
    for name, (keys, _) in CONVERSATIONS.items():
        if reader.is_filled(*keys) or (name == "alpaca" and reader.is_filled("input", "output") and keys[0] in row):
            return name
    beside = [key for key, value in row.items() if key != "text" and texts_in(value)]
    if reader.is_filled("text") and not beside:
        return "text"
    for name, (keys, _) in CONVERSATIONS.items():
        if all(key in row for key in keys) and (reader.is_filled(keys[0]) or "text" not in row):
            return name  # a part of it is empty; its reader says which
    if "text" in row and not beside:
        return "text"
    if reader.is_filled("chosen", "rejected"):
        others = ", ".join(stage.name for stage in STAGES.values() if "preference" in stage.formats)
        raise RowError(
            f"is a preference pair (`chosen`, `rejected`), which only stage {others} learns from; give conversations"
        )
    if reader.is_filled("text"):
        raise UnknownForm(
            f"has `text`, but also {shown_keys(beside)} with text; set the source's `format: text` to read only `text`"
        )
    known = "; ".join(f"{name} ({', '.join(keys)})" for name, (keys, _) in CONVERSATIONS.items())
    raise UnknownForm(
        f"found {shown_keys(row)}, which is no known format; allowed: {known}; text (text)",
        ". Rename its keys with `columns`",
    )


def _learned(read: Read, form: str, reading: Reading) -> list[bool]:
    """For each turn, whether it is learned."""
    answers = [index for index, turn in enumerate(read.turns) if turn.role == "assistant"]
    if reading.learn == "completion":
        if read.completion is None:
            raise RowError(
                f"was read as {form}, which has no completion apart from its prompt; `data.learn: completion` needs "
                "rows of prompt and completion; set it to last_answer or all_answers"
            )
        answers = [index for index in answers if index >= read.completion]
    elif reading.learn == "last_answer":
        answers = answers[-1:]
    return [index in answers and turn.mark is not False for index, turn in enumerate(read.turns)]


def _messages(row: RowReader) -> Read:
    return Read(with_system(row, read_turns(row, "messages")))


def _sharegpt(row: RowReader) -> Read:
    return Read(with_system(row, read_turns(row, "conversations")))


def _prompt_completion(row: RowReader) -> Read:
    prompt, completion = _question(row, "prompt"), row.get("completion")
    if isinstance(completion, list) or is_turn(completion):
        answer = read_turns(row, "completion")
    else:
        answer = [Turn("assistant", text(completion, "`completion`", row))]
    if prompt[-1].role == answer[0].role == "assistant":
        raise RowError(
            "has a `prompt` that ends with an assistant turn, so `completion` would be a second answer; join them"
        )
    return Read(prompt + answer, len(prompt), is_transcript(row.get("prompt")))


def _alpaca(row: RowReader) -> Read:
    prompt = _question(row, "instruction")
    return Read([*prompt, Turn("assistant", text(row.get("output"), "`output`", row))], len(prompt))


def _question(row: RowReader, key: str) -> list[Turn]:
    """The prompt, which must be there: otherwise an answer would be learned without its question."""
    return read_prompt(row, (key,)) or [Turn("user", text(row.get(key), f"`{key}`", row))]


CONVERSATIONS: dict[str, tuple[tuple[str, ...], Callable[[RowReader], Read]]] = {
    "messages": (("messages",), _messages),
    "sharegpt": (("conversations",), _sharegpt),
    "prompt_completion": (("prompt", "completion"), _prompt_completion),
    "alpaca": (("instruction", "output"), _alpaca),
}
