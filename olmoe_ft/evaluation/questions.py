"""Held-out prompts whose answer a program can check."""

from dataclasses import dataclass
from itertools import islice
from typing import Any

from olmoe_ft.data.formats import conversation_prompt
from olmoe_ft.data.locations import read_rows
from olmoe_ft.data.rows import Reading, RowError, shown
from olmoe_ft.data.unread import JUDGEMENTS
from olmoe_ft.data.words import asked
from olmoe_ft.evaluation.answered import Mark
from olmoe_ft.recipe import UserError
from olmoe_ft.recipe.data_section import Answers


@dataclass(frozen=True)
class Question:
    """A prompt, its answer, and the styles it may be given in: a style is a text before and a text after the answer."""

    prompt: list[dict[str, str]]
    answer: str
    frames: dict[str, tuple[str, str]]
    skill: str

    def texts(self) -> list[str]:
        """What the user says, turn by turn."""
        return asked((message["role"], message["content"]) for message in self.prompt)

    def mark(self, completion: str) -> Mark:
        """Whether the completion is the answer in one of the styles, and which style it is in, right or wrong.

        The style with the longest frame that fits is the one, so a frame of nothing fits only where no other does.
        """
        for style, (before, after) in sorted(self.frames.items(), key=lambda item: -len("".join(item[1]))):
            framed = len(completion) >= len(before) + len(after)
            if framed and completion.startswith(before) and completion.endswith(after):
                return Mark(completion == before + self.answer + after, style)
        return Mark(False, None)


def load_questions(answers: Answers) -> list[Question]:
    """Rows of `messages` (or `prompt`), `answer`, and optionally `frames` and `skill`.

    Raises:
        UserError: the file is missing or empty, or a row lacks its prompt or answer.
    """
    questions = []
    for where, row in islice(read_rows(answers.path), answers.limit):
        try:
            prompt = conversation_prompt(row, Reading(ignore=frozenset(JUDGEMENTS)))
        except RowError as error:
            raise UserError(f"{where}: {error}") from None
        if not isinstance(row.get("answer"), str) or not row["answer"]:
            raise UserError(f"{where}: `answer` must be the expected text, found {shown(row.get('answer'))}")
        frames = row.get("frames") or {"plain": ("", "")}
        if not (isinstance(frames, dict) and all(_is_frame(frame) for frame in frames.values())):
            raise UserError(
                f"{where}: `frames` must give each style a text before and one after, found {shown(frames)}"
            )
        styles = {style: (before, after) for style, (before, after) in frames.items()}
        questions.append(Question(prompt, row["answer"], styles, str(row.get("skill", "all"))))
    if not questions:
        raise UserError(f"{answers.path}: no held-out prompts; give at least one row")
    return questions


def _is_frame(frame: Any) -> bool:
    return isinstance(frame, list | tuple) and len(frame) == 2 and all(isinstance(text, str) for text in frame)
