"""Held-out prompts whose answer a program can check."""

from dataclasses import dataclass
from itertools import islice

from olmoe_ft.data.formats import conversation_prompt
from olmoe_ft.data.locations import read_rows
from olmoe_ft.data.rows import Reading, RowError
from olmoe_ft.data.unread import JUDGEMENTS
from olmoe_ft.data.words import asked
from olmoe_ft.evaluation.answered import Mark
from olmoe_ft.evaluation.scorers.answers import answer_text
from olmoe_ft.evaluation.scorers.frames import frames_of, mark
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
        """Whether the completion is the answer in one of the styles, and which style it is in, right or wrong."""
        return mark(completion, self.answer, self.frames)


def load_questions(answers: Answers) -> list[Question]:
    """Rows of `messages` (or `prompt`), `answer`, and optionally `frames` and `skill`.

    Raises:
        UserError: the file is missing or empty, or a row lacks its prompt or answer.
    """
    questions = []
    for where, row in islice(read_rows(answers.path), answers.limit):
        try:
            prompt = conversation_prompt(row, Reading(ignore=frozenset(JUDGEMENTS)))
            answer, frames = answer_text(row, "the expected text"), frames_of(row)
        except (RowError, UserError) as error:
            raise UserError(f"{where}: {error}") from None
        questions.append(Question(prompt, answer, frames, str(row.get("skill", "all"))))
    if not questions:
        raise UserError(f"{answers.path}: no held-out prompts; give at least one row")
    return questions
