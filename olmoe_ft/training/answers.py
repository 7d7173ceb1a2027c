"""Exact match: generate greedily on held-out prompts whose answer a program can check."""

from collections import defaultdict
from dataclasses import dataclass
from typing import Any

from accelerate import PartialState
from accelerate.utils import gather_object
from tqdm import tqdm
from transformers import PreTrainedTokenizerBase

from olmoe_ft.data.files import read_rows
from olmoe_ft.data.formats import conversation_prompt
from olmoe_ft.data.turns import RowError
from olmoe_ft.model import OlmoeForCausalLM
from olmoe_ft.model.generate import complete
from olmoe_ft.recipe import RecipeError
from olmoe_ft.recipe.schema import Answers


@dataclass(frozen=True)
class Question:
    """A prompt, its answer, and the styles it may be given in: a style is a text before and a text after the answer."""

    prompt: list[dict[str, str]]
    answer: str
    frames: dict[str, tuple[str, str]]
    skill: str

    def texts(self) -> list[str]:
        """What is asked, turn by turn, without earlier answers."""
        return [message["content"] for message in self.prompt if message["role"] != "assistant"]

    def mark(self, completion: str) -> tuple[bool, str | None]:
        """Whether the completion is the answer in one of the styles, and which style it is in, right or wrong.

        The style with the longest frame that fits is the one, so a frame of nothing fits only where no other does.
        """
        for style, (before, after) in sorted(self.frames.items(), key=lambda item: -len("".join(item[1]))):
            framed = len(completion) >= len(before) + len(after)
            if framed and completion.startswith(before) and completion.endswith(after):
                return completion == before + self.answer + after, style
        return False, None


def load_questions(answers: Answers) -> list[Question]:
    """Rows of `messages` (or `prompt`), `answer`, and optionally `frames` and `skill`.

    Raises:
        RecipeError: the file is missing or empty, or a row lacks its prompt or answer.
    """
    questions = []
    for where, row in read_rows(answers.path):
        try:
            prompt = conversation_prompt(row)
        except RowError as error:
            raise RecipeError(f"{where}: {error}") from None
        if not isinstance(row.get("answer"), str):
            raise RecipeError(f"{where}: `answer` must be the expected text, found {row.get('answer')!r}")
        frames = {style: (before, after) for style, (before, after) in row.get("frames", {"plain": ("", "")}).items()}
        questions.append(Question(prompt, row["answer"], frames, str(row.get("skill", "all"))))
    if not questions:
        raise RecipeError(f"{answers.path}: no held-out prompts; give at least one row")
    return questions[: answers.limit]


def score(
    model: OlmoeForCausalLM, tokenizer: PreTrainedTokenizerBase, questions: list[Question], answers: Answers, label: str
) -> dict[str, Any]:
    """Exact match and styles of greedy generation, all and per skill; every process takes its share of the prompts.

    Returns:
        `{"exact_match": share, "styles": {style: share}, "skills": {skill: share}, "count": n}`, shares of 1.
    """
    state = PartialState()
    # similar lengths together: a batch costs what its longest prompt costs
    order = sorted(range(len(questions)), key=lambda index: len(questions[index].prompt[-1]["content"]))
    mine = order[state.process_index :: state.num_processes]
    batches = [mine[start : start + answers.batch_size] for start in range(0, len(mine), answers.batch_size)]
    model.eval()
    marks: list[tuple[int, bool, str | None]] = []
    for batch in tqdm(batches, desc=label, disable=not state.is_main_process, leave=False):
        completions = complete(model, tokenizer, [questions[index].prompt for index in batch], answers.max_new_tokens)
        marks += [(index, *questions[index].mark(text)) for index, text in zip(batch, completions, strict=True)]
    return _shares(questions, gather_object(marks))


def _shares(questions: list[Question], marks: list[tuple[int, bool, str | None]]) -> dict[str, Any]:
    by_skill: dict[str, list[bool]] = defaultdict(list)
    by_style = {style: 0 for question in questions for style in question.frames}
    for index, right, style in marks:
        by_skill[questions[index].skill].append(right)
        if style is not None:
            by_style[style] += 1
    return {
        "exact_match": sum(right for _, right, _ in marks) / len(marks),
        "styles": {style: count / len(marks) for style, count in sorted(by_style.items())},
        "skills": {skill: sum(rights) / len(rights) for skill, rights in sorted(by_skill.items())},
        "count": len(marks),
    }
