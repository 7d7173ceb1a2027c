"""Texts that others wrote, as a terminal may safely show them."""

import unicodedata

BIDIRECTIONAL = {"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"}  # they turn the text around them


def printable(text: str) -> str:
    """The text with what would steer a terminal written as an escape.

    That is control codes but tab and line end, half characters, and marks that reverse the direction of what follows.
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(_escaped(character) if _steers(character) else character for character in text)


def _steers(character: str) -> bool:
    if character in "\n\t":
        return False
    return unicodedata.category(character) in ("Cc", "Cs") or unicodedata.bidirectional(character) in BIDIRECTIONAL


def _escaped(character: str) -> str:
    return character.encode("unicode_escape").decode()
