"""Keys that are not read: refuse those that are part of the example, and find others that may be.

If a picture, a tool, a judgement or a mark were left out without a word, the row would teach something else than it
says. There are too many names for these to list them all, so values are checked too.
"""

import math
import re
from collections.abc import Collection, Mapping
from typing import Any

from olmoe_ft.data.rows import RowError, is_blank, key_name, says_nothing, shown, shown_keys, texts_in
from olmoe_ft.data.words import words
from olmoe_ft.stages import STAGES

CONTENT_WORDS = 20  # an unread text with at least this many words may be part of the example
WHOLE_WORDS = 4  # a text of up to this many words repeats another only if both are the same, not if it is within it

# A picture, a video, a sound: recognised by a word in the key, or by a file name as the value.
MEDIA_KEY = re.compile(r"(^|_)(images?|img|pictures?|photos?|screenshots?|videos?|audios?|pixel)(_|$)")
MEDIA_FILE = re.compile(
    r"^data:(image|audio|video)/|\.(jpe?g|png|gif|webp|bmp|tiff?|mp4|mov|webm|avi|mkv|wav|mp3|flac|ogg|m4a)(\?\S*)?$",
    re.IGNORECASE,
)
WORD_STARTS = re.compile(r"(?<=[a-z])(?=[A-Z])|-")
TOOLS = ("tools", "functions", "available_tools", "tool_calls", "function_call")
LABELS = ("label", "kto_tag")  # of a whole answer, where a stage is `labelled`; the second is LLaMA-Factory's
JUDGEMENTS = (*LABELS, "labels", "preference", "winner", "better_response_id", "safer_response_id")
MARKS = ("train", "trainable", "loss", "loss_mask", "weight", "loss_weight")  # whether a turn is learned
ROW = "the row"  # as messages name it
WORDS_OF_MARKS = ("true", "false", "yes", "no")  # as a table without types writes them
FORMAT_KEYS = frozenset(
    "messages conversations conversation prompt completion instruction input output history system system_prompt text "
    "question answer query response solution chosen rejected context document system_message".split()
)


def has_label(row: Any, ignored: Collection[str]) -> bool:
    """Whether a row, before it is read, has the label of a whole answer."""
    return isinstance(row, Mapping) and any(key not in ignored and not is_blank(row.get(key)) for key in LABELS)


def refuse_parts(keys: Mapping[str, Any], where: str) -> None:
    """Refuse keys with something that a conversation of texts cannot express.

    Raises:
        RowError: there is one, and it is not empty.
    """
    for key, value in keys.items():
        if says_nothing(value):
            continue
        if key in TOOLS or _is_media(key, value):
            raise RowError(f"{where} has `{key_name(key)}`, which OLMoE's chat format cannot express; {leave_out(key)}")
        if key in JUDGEMENTS:
            labelled = [stage.name for stage in STAGES.values() if stage.labelled and where == ROW and key in LABELS]
            by = f" (stage {' or '.join(labelled)} learns from it)" if labelled else ""
            raise RowError(f"{where} has `{key}`, a judgement that this stage does not use{by}; {leave_out(key)}")


def refuse_marks(keys: Mapping[str, Any], where: str) -> None:
    """Refuse unknown keys of a turn or a part with a number, true or false as value, or with true or false inside it.

    Raises:
        RowError: there is one.
    """
    marks = {key: value for key, value in keys.items() if isinstance(value, int | float) or _holds_a_mark(value)}
    if marks:
        named = ", ".join(f"`{key_name(key)}`: {shown(value)}" for key, value in list(marks.items())[:3])
        raise RowError(f"{where} has {named}, which may say how to learn it, but is not known; {leave_out(*marks)}")


def refuse_marks_of_the_row(keys: Mapping[str, Any]) -> None:
    """Refuse a mark that says not to learn the whole row, or a list of marks for its turns.

    Raises:
        RowError: there is one.
    """
    for key in MARKS:
        number = _number(keys.get(key, 1))
        is_no = number == 0 or (number is not None and "weight" in key and number != 1)
        if is_no or isinstance(keys.get(key), list | tuple):
            raise RowError(f"the row has `{key}` {shown(keys[key])}, which this stage does not obey; {leave_out(key)}")
    for key, value in keys.items():
        if isinstance(value, list | tuple) and len(value) > 1 and all(one in (0, 1) for one in value):
            raise RowError(
                f"the row has `{key_name(key)}` {shown(value)}, which may say which turns to learn; {leave_out(key)}"
            )


def may_matter(key: str, value: Any, said: set[str]) -> bool:
    """Whether a key that was not read may be part of the example.

    It may be if it is true or false, is a key of a known format, or has a long text, unless that only repeats what was
    read.

    Args:
        said: the texts that were read.
    """
    if isinstance(value, bool) or (isinstance(value, str) and value.strip().lower() in WORDS_OF_MARKS):
        return True
    if value in (0, 1) and key.lower().startswith(("is_", "has_", "correct", "accepted", "valid", "good")):
        return True
    texts = texts_in(value)
    is_content = key in FORMAT_KEYS or sum(len(words(text)) for text in texts) >= CONTENT_WORDS
    return is_content and not (texts and all(_repeats(text.strip(), said) for text in texts if _is_said(text, value)))


def _number(value: Any) -> float | None:
    """A number, true or false, or the text of one."""
    if isinstance(value, str):
        words_of_numbers = {"true": "1", "yes": "1", "false": "0", "no": "0"}
        value = words_of_numbers.get(value.strip().lower(), value)
    try:
        return float(value) if isinstance(value, str | bool | int | float) else None
    except ValueError:
        return None
    except OverflowError:  # an integer of more than 308 digits
        return math.inf


def _holds_a_mark(value: Any) -> bool:
    """Whether a value is true or false, or contains one of these at any depth."""
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, list | tuple):
        return any(_holds_a_mark(one) for one in value)
    return isinstance(value, bool) or (isinstance(value, str) and value.strip().lower() in WORDS_OF_MARKS)


def leave_out(*keys: str) -> str:
    """The remedy for keys that are refused."""
    return (
        "remove such rows (`data.malformed: drop` does), or leave the key out with "
        f"`ignore: [{shown_keys(keys)}]` below the source's `path`"
    )


def _is_media(key: str, value: Any) -> bool:
    if isinstance(value, list | tuple):
        return any(_is_media(key, item) for item in value)
    if isinstance(value, Mapping):  # `datasets` stores them as {"bytes", "path"}
        inner = any(_is_media(str(name), item) for name, item in value.items())
        return inner or {"bytes", "path"} <= value.keys() or (bool(value) and _named_so(key))
    if isinstance(value, str):
        return bool(value.strip()) and bool(_named_so(key) or MEDIA_FILE.search(value))
    is_thing = value is not None and not isinstance(value, bool | int | float)
    return is_thing and (_named_so(key) or isinstance(value, bytes))


def _named_so(key: str) -> bool:
    return MEDIA_KEY.search(WORD_STARTS.sub("_", str(key)).lower()) is not None


def _is_said(text: str, value: Any) -> bool:
    """Whether a text within a value is more than the name of the speaker."""
    return isinstance(value, str) or text.strip().lower() not in ("user", "assistant", "system", "human", "gpt")


def _repeats(text: str, said: set[str]) -> bool:
    if text in said:
        return True
    return len(words(text)) > WHOLE_WORDS and any(text in other for other in said)
