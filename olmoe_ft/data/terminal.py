"""Make texts from others safe to show in a terminal."""

import unicodedata
from collections.abc import Iterable
from typing import Any, TextIO

from rich import console as rich_console
from rich.console import ConsoleOptions, ConsoleRenderable, RenderableType, RenderHook, RenderResult
from rich.segment import Segment

TURNING = {
    "LRE",
    "RLE",
    "LRO",
    "RLO",
    "PDF",
    "LRI",
    "RLI",
    "FSI",
    "PDI",
}  # they change the direction of the text around them
UNSEEN = {"BN", "L", "R"}  # classes of invisible format characters
JOINERS = "\u200c\u200d"  # needed by languages and emoji
ALSO_UNSEEN = set("\u061c\ufff9\ufffa\ufffb\u034f\u115f\u1160\u17b4\u17b5\u3164\uffa0")
ALSO_UNSEEN |= set(map(chr, range(0xE0100, 0xE01F0)))


def printable(text: str) -> str:
    """The text with characters that control a terminal, or are invisible, written as escapes.

    These are control codes except tab and newline, lone surrogates, other line ends, marks that reverse the direction
    of what follows, and invisible characters.
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(_escaped(character) if _steers(character) else character for character in text)


class Console(rich_console.Console):
    """rich's console, with every text made safe by `printable`. Styles are kept.

    Text that looks like rich's markup is not escaped here; use `rich.markup.escape` for texts from others.
    """

    def __init__(self, **how: Any) -> None:
        super().__init__(**how)
        self.push_render_hook(_Printable())


class _Printable(RenderHook):
    def process_renderables(self, renderables: list[ConsoleRenderable]) -> list[ConsoleRenderable]:
        return [_Shown(renderable) for renderable in renderables]


class _Shown:
    def __init__(self, inner: RenderableType) -> None:
        self.inner = inner

    def __rich_console__(self, console: rich_console.Console, options: ConsoleOptions) -> RenderResult:
        yield from _escape_segments(console.render(self.inner, options))


def _escape_segments(segments: Iterable[Segment]) -> Iterable[Segment]:
    for segment in segments:
        yield segment if segment.control else Segment(printable(segment.text), segment.style)


def middle_cut(text: str, start: int, end: int, lines: int | None = None) -> tuple[str, str, int]:
    """The start and the end of a text; both matter in a prompt and in an answer.

    Args:
        start, end: characters to keep on either side of a text that is longer than both together.
        lines: to keep on either side of a text that has more than twice as many; None keeps all.
    Returns:
        the start, the end, and how many characters between them are left out. A text that is kept whole is the start.
    """
    head, tail = text[:start], text[len(text) - min(end, len(text)) :]
    if lines is not None and text.count("\n") >= 2 * lines:
        head = "\n".join(text.split("\n", lines)[:lines])[:start]
        tail = "\n".join(text.rsplit("\n", lines)[1:])
        tail = tail[len(tail) - min(end, len(tail)) :]
    elif len(text) <= start + end:
        return text, "", 0
    return head, tail, len(text) - len(head) - len(tail)


def say(text: str, file: TextIO | None = None) -> None:
    """Print a line."""
    print(printable(text), file=file, flush=True)


def _steers(character: str) -> bool:
    if character in "\n\t":
        return False
    if character in ALSO_UNSEEN:
        return True
    category, direction = unicodedata.category(character), unicodedata.bidirectional(character)
    if category == "Cf" and character not in JOINERS:
        return direction in UNSEEN or direction in TURNING
    return category in ("Cc", "Cs", "Zl", "Zp")


def _escaped(character: str) -> str:
    return character.encode("unicode_escape").decode()
