"""Exact match: generate greedily on held-out prompts whose answer a program can check."""

from collections import defaultdict
from typing import Any

from accelerate import PartialState
from accelerate.utils import gather_object
from tqdm import tqdm
from transformers import PreTrainedTokenizerBase

from olmoe_ft.data.template import prompts
from olmoe_ft.evaluation.questions import Question
from olmoe_ft.model import OlmoeForCausalLM
from olmoe_ft.model.generate import complete
from olmoe_ft.recipe.schema import Answers


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
        texts = prompts([questions[index].prompt for index in batch], tokenizer)
        completions = complete(model, tokenizer, texts, answers.max_new_tokens)
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
