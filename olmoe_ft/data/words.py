"""The words of a row, for comparing rows whatever the template and the tokenizer."""

import re
from collections.abc import Mapping
from typing import Any

# Scripts without spaces between words (Thai to Khmer, kana, ideographs, Hangul): each character is a word.
UNSPACED = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af\uf900-\ufaff"
WORD = re.compile(f"[{UNSPACED}]|[^\\W{UNSPACED}]+")


def row_texts(example: Mapping[str, Any]) -> list[str]:
    """Every text of a converted row, turn by turn."""
    if example.get("text"):
        return [example["text"]]
    parts = ("messages", "prompt", "chosen", "rejected")
    return [message["content"] for part in parts for message in example.get(part) or ()]


def words(text: str) -> list[str]:
    """Lower-case words without punctuation."""
    return WORD.findall(text.lower())


def ngrams(sequence: list[str], length: int) -> list[str]:
    """Every run of `length` words, joined by spaces; of a shorter sequence the whole, of an empty one nothing."""
    if not sequence:
        return []
    return [" ".join(sequence[start : start + length]) for start in range(max(1, len(sequence) - length + 1))]
