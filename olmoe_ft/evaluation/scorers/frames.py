"""Exact match in one of several styles: a text before the answer and one after it, the frame, may belong to it.

A row has `answer`, and optionally `frames`: for each style its two texts. Without them the answer alone is right.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from olmoe_ft.data.rows import shown
from olmoe_ft.evaluation.answered import Mark
from olmoe_ft.evaluation.scorers.answers import answer_text
from olmoe_ft.recipe import UserError

Frames = Mapping[str, tuple[str, str]]


def mark(completion: str, answer: str, frames: Frames) -> Mark:
    """Whether the completion is the answer in one of the styles, and which style it is in, right or wrong.

    The style with the longest frame that fits is the one, so a frame of nothing fits only where no other does.
    """
    for style, (before, after) in sorted(frames.items(), key=lambda item: -len("".join(item[1]))):
        framed = len(completion) >= len(before) + len(after)
        if framed and completion.startswith(before) and completion.endswith(after):
            return Mark(completion == before + answer + after, style)
    return Mark(False, None)


def frames_of(row: Mapping[str, Any]) -> dict[str, tuple[str, str]]:
    """The styles that the answer of a row may be given in.

    Raises:
        UserError: `frames` is something else.
    """
    frames = row.get("frames") or {"plain": ("", "")}
    if isinstance(frames, dict):
        # `datasets` fills in null for the styles that only other rows have
        frames = {style: frame for style, frame in frames.items() if frame is not None}
        if frames and all(_is_frame(frame) for frame in frames.values()):
            return {style: (before, after) for style, (before, after) in frames.items()}
    raise UserError(f"`frames` must give each style a text before and one after, found {shown(frames)}")


def process_results(doc: Mapping[str, Any], results: Sequence[str]) -> dict[str, float]:
    """`exact_match`, and for each style of the row whether the output is in it: `style_bare`, `style_polite`."""
    frames = frames_of(doc)
    right, style = mark(results[0], answer_text(doc, "the expected text"), frames)
    return {"exact_match": float(right), **{f"style_{name}": float(name == style) for name in frames}}


def _is_frame(frame: Any) -> bool:
    return isinstance(frame, list | tuple) and len(frame) == 2 and all(isinstance(text, str) for text in frame)
