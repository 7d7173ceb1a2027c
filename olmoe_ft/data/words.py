"""The words of a row, to compare rows independently of template and tokenizer."""

import re
from collections.abc import Iterable, Mapping
from typing import Any
from unicodedata import normalize

# Scripts without spaces between words (Thai to Khmer, kana, ideographs, Hangul): each character is a word.
UNSPACED = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af\uf900-\ufaff"
WORD = re.compile(f"[{UNSPACED}]|[^\\W{UNSPACED}]+")


def row_turns(example: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Role and text of every turn of a converted row; the role of plain text is "text"."""
    if example.get("text"):
        return [("text", example["text"])]
    parts = (value for value in example.values() if isinstance(value, list))
    messages = (item for part in parts for item in part if isinstance(item, Mapping))
    return [(message["role"], message["content"]) for message in messages]


def asked(turns: Iterable[tuple[str, str]]) -> list[str]:
    """The user's texts, or a plain text."""
    return [text for role, text in turns if role in ("user", "text")]


def words(text: str) -> list[str]:
    """Lower-case words without punctuation, their characters composed (NFC)."""
    return WORD.findall((text if text.isascii() else normalize("NFC", text)).lower())


def ngrams(sequence: list[str], length: int) -> list[str]:
    """Every run of `length` words, joined by spaces; a shorter sequence is one run, an empty one has none."""
    if not sequence:
        return []
    return [" ".join(sequence[start : start + length]) for start in range(max(1, len(sequence) - length + 1))]
